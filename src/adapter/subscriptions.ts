// Who subscribed to which resource of a server that several share, so that updates reach them and no others.

const URI_CHARACTERS = 4096

export class SubscriptionTable<Owner> {
  readonly #limit: number
  readonly #owners = new Map<string, Set<Owner>>()

  /** `limit` resources at most. */
  constructor(limit: number) {
    this.#limit = limit
  }

  has(uri: string, owner: Owner): boolean {
    return this.#owners.get(uri)?.has(owner) === true
  }

  /** False when there is no room for a further resource. */
  add(uri: string, owner: Owner): boolean {
    const owners = this.#owners.get(uri)
    if (owners) {
      owners.add(owner)
      return true
    }
    if (this.#owners.size >= this.#limit || uri.length > URI_CHARACTERS) return false
    this.#owners.set(uri, new Set([owner]))
    return true
  }

  /** True when others are still subscribed, so that the server must not hear of it. */
  remove(uri: string, owner: Owner): boolean {
    const owners = this.#owners.get(uri)
    owners?.delete(owner)
    if (owners?.size === 0) this.#owners.delete(uri)
    return this.#owners.has(uri)
  }

  /** Takes an owner off everywhere; the resources that nobody is subscribed to any more. */
  removeAll(owner: Owner): string[] {
    return [...this.#owners]
      .filter(([uri, owners]) => owners.has(owner) && !this.remove(uri, owner))
      .map(([uri]) => uri)
  }

  /** Whom an update concerns: it may name a part of the resource that was subscribed to. */
  concerned(uri: string): Set<Owner> {
    const concerned = new Set<Owner>()
    for (const [whole, owners] of this.#owners) {
      if (isPartOf(uri, whole)) for (const owner of owners) concerned.add(owner)
    }
    return concerned
  }
}

function isPartOf(uri: string, whole: string): boolean {
  return uri.startsWith(whole) && (uri.length === whole.length || /[/?#]/.test(whole.at(-1) + uri[whole.length]!))
}
