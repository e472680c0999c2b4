service 'shop' {}
