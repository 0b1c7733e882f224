// Processor and memory of the servers of each service and client. It is looked at when somebody asks, not more often than
// every few seconds; whatever does not answer in time is absent, and nobody waits for it.

export interface Used {
  readonly service: string
  readonly client: string
  /** Of what the numbers are: a container, or the processes of one adapter. Others have another name. */
  readonly of: string
  readonly cpuSeconds: number
  readonly memoryBytes: number
}

export interface SlotUsage {
  readonly service: string
  readonly client: string
  /** Undefined: it has been looked at only once. */
  readonly cores: number | undefined
  readonly memoryBytes: number
}

/** What is looked at: an engine, or this machine's processes. */
export type Source = (signal: AbortSignal) => Promise<readonly Used[]>

/** The same numbers are told for so long, and shares of a processor are those of at least so long a time. */
const FRESH_MS = 5000
/** A source that is looked at for longer has to wait for its next turn. */
const LOOK_MS = 10_000
/** Nobody is told what is older. */
const STALE_MS = 30_000
/** A scrape waits for so long; who is late is told next time. */
const PATIENCE_MS = 500

interface Seen {
  readonly at: number
  readonly used: readonly Used[]
  readonly cores: ReadonlyMap<string, number>
}

export class Usage {
  readonly #sources: () => ReadonlyMap<string, Source>
  readonly #now: () => number
  readonly #seen = new Map<string, Seen>()
  readonly #looking = new Map<string, Promise<void>>()

  /** @param sources by name, as they are at this moment */
  constructor(sources: () => ReadonlyMap<string, Source>, now: () => number = () => performance.now()) {
    this.#sources = sources
    this.#now = now
  }

  async read(patienceMs = PATIENCE_MS): Promise<SlotUsage[]> {
    const sources = this.#sources()
    for (const name of this.#seen.keys()) if (!sources.has(name)) this.#seen.delete(name)
    const due = [...sources].filter(([name]) => this.#now() - (this.#seen.get(name)?.at ?? -Infinity) >= FRESH_MS)
    await inTime(Promise.all(due.map(([name, source]) => this.#look(name, source))), patienceMs)
    const slots = new Map<string, { -readonly [K in keyof SlotUsage]: SlotUsage[K] }>()
    for (const { at, used, cores } of this.#seen.values()) {
      if (this.#now() - at > STALE_MS) continue
      for (const { service, client, of, memoryBytes } of used) {
        const key = `${service}|${client}`
        const slot = slots.get(key) ?? { service, client, cores: undefined, memoryBytes: 0 }
        const more = cores.get(of)
        if (more !== undefined) slot.cores = (slot.cores ?? 0) + more
        slot.memoryBytes += memoryBytes
        slots.set(key, slot)
      }
    }
    return [...slots.values()]
  }

  /** One look at a time. */
  #look(name: string, source: Source): Promise<void> {
    const running = this.#looking.get(name)
    if (running) return running
    const look = this.#lookAt(name, source)
      // An engine that does not answer is a problem of its own, which is told elsewhere.
      .catch(() => undefined)
      .finally(() => this.#looking.delete(name))
    this.#looking.set(name, look)
    return look
  }

  async #lookAt(name: string, source: Source): Promise<void> {
    const used = await source(AbortSignal.timeout(LOOK_MS))
    const at = this.#now()
    this.#seen.set(name, { at, used, cores: coresOf(used, at, this.#seen.get(name)) })
  }
}

function coresOf(used: readonly Used[], at: number, before: Seen | undefined): Map<string, number> {
  if (!before) return new Map()
  const earlier = new Map(before.used.map(({ of, cpuSeconds }) => [of, cpuSeconds]))
  const seconds = (at - before.at) / 1000
  return new Map(
    used.flatMap(({ of, cpuSeconds }) => {
      const then = earlier.get(of)
      // Of a tree of processes one may have ended, and its time with it.
      return then === undefined ? [] : [[of, Math.max(0, cpuSeconds - then) / seconds] as const]
    }),
  )
}

async function inTime(work: Promise<unknown>, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const timer = setTimeout(() => resolve(undefined), ms)
  await Promise.race([work, promise])
  clearTimeout(timer)
}
