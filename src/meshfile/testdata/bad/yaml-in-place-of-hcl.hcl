service:
  name: shop
