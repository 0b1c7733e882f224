// What was compiled last, by what it was made of: a change of one service makes the resources of one service. Compilation
// stays pure: the same world gives equal resources with any memory, only the unchanged ones are the same objects.

interface Entry {
  readonly make: (...args: never[]) => unknown
  readonly args: readonly unknown[]
  readonly made: unknown
}

export class Memory {
  #last: ReadonlyMap<string, Entry> = new Map()
  #now = new Map<string, Entry>()

  /**
   * What `make` returns for these arguments, which are plain data and all that it depends on.
   * @param key unique among the calls of one `make` in one compilation
   */
  recall<Args extends readonly unknown[], Made>(make: (...args: Args) => Made, key: string, ...args: Args): Made {
    const id = `${make.name} ${key}`
    const last = this.#last.get(id)
    const entry = last?.make === make && equal(last.args, args) ? last : { make, args, made: make(...args) }
    this.#now.set(id, entry)
    return entry.made as Made
  }

  /** A compilation has ended: what it did not ask for is forgotten. */
  turn(): void {
    this.#last = this.#now
    this.#now = new Map()
  }
}

/** Of plain data: JSON and undefined. Anything else is equal to itself only. */
export function equal(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  const prototype: unknown = Object.getPrototypeOf(a)
  if (prototype !== Object.getPrototypeOf(b)) return false
  if (Array.isArray(a))
    return a.length === (b as unknown[]).length && a.every((each, i) => equal(each, (b as unknown[])[i]))
  if (prototype !== Object.prototype && prototype !== null) return false
  const keys = Object.keys(a)
  if (keys.length !== Object.keys(b).length) return false
  return keys.every((key) => Object.hasOwn(b, key) && equal(a[key as keyof typeof a], b[key as keyof typeof b]))
}
