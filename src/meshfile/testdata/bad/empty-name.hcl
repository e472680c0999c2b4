service "" {}
