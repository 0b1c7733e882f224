// What is made of an object that does not change, once for each variant: the world is looked at many times a second, and
// most of it is the same objects as before.

const MADE = new WeakMap<object, Map<string, string>>()

/** @param variant all that it depends on besides the object */
export function oncePer(object: object, variant: string, make: () => string): string {
  let made = MADE.get(object)
  if (!made) MADE.set(object, (made = new Map()))
  let found = made.get(variant)
  if (found === undefined) made.set(variant, (found = make()))
  return found
}
