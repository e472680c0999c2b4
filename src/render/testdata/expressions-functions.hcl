service "shop" {
  process = lower("WEB")
  tags    = concat(["v1"], split(",", "a,b"), keys({ k = 1 }))
  meta = merge(
    { colour = upper(env.COLOUR), joined = join("-", ["a", "b"]), first = coalesce(null, "z") },
    { n = format("%03d", length(values({ a = 1, b = 2 }))), v = regex("[0-9]+", "v42") },
    { p = trimprefix("v1", "v"), s = trimsuffix("a.b", ".b"), t = trimspace(" x "), r = replace("a_b", "_", "-") },
    { has = contains(["blue"], env.COLOUR) ? "yes" : "no", json = jsonencode([1]), sub = substr("shop", 0, 2) },
  )
}
