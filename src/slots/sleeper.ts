// Puts slots to sleep that nobody uses, without losing a request (envoy-measured.md A §5.2).
//
//   up --nobody uses it--> the next life is asleep, this one falls asleep --Envoy has its routes--> its adapter ends
//
// Until its adapter has ended a life can be had back, with its sessions: a request for the next one, or one that reached
// the adapter on an old route, gives the adapter to the next life. The adapter itself has the last word: it ends only if
// nobody has used it since it was looked at.

import { clusterName } from '../model/names.ts'
import { decide, isKept, type AwakeFor, type Decision } from './sleep.ts'
import { key, type Entry, type Life } from './life.ts'
import type { Adapter } from './slot-parts.ts'

/** An adapter that does not say how it is is asked again this often. */
const AGAIN_MS = 5000
/** The longest that a timer takes. */
const TIMER_MS = 2 ** 31 - 1

/** What slots do for it. */
export interface SleeperContext {
  /** The next life of a slot, asleep. */
  readonly advance: (entry: Entry) => Life
  readonly start: (entry: Entry, life: Life) => void
  /** The life's cluster goes when no route names it any more. */
  readonly forget: (entry: Entry, life: Life) => void
  /** Ends an adapter that may have requests. */
  readonly drain: (entry: Entry, adapter: Adapter) => void
  /** Resolves when no request is led to earlier lives of a slot any more; never, once the slots are closed. */
  readonly routed: (entry: Entry) => Promise<void>
  /** Not called once the slots are closed. */
  readonly later: (work: () => void, ms: number) => NodeJS.Timeout
  readonly cancel: (timer: NodeJS.Timeout | undefined) => void
  readonly changed: () => void
  /** Whether a release has it up, though nobody asks for it. */
  readonly needed: (entry: Entry) => boolean
  readonly log: (message: string, fields?: object) => void
}

export class Sleeper {
  readonly #context: SleeperContext

  constructor(context: SleeperContext) {
    this.#context = context
  }

  /** Why a life is awake; undefined: nobody knows yet, or it sleeps soon. */
  awakeFor(entry: Entry, life: Life): AwakeFor | undefined {
    const decision = this.#decisionOn(entry, life)
    return !decision || decision.sleep ? undefined : decision.awakeFor
  }

  /** Something is different: makes sure that it is looked at when it may sleep. */
  watch(entry: Entry, life: Life): void {
    if (!isUp(entry, life)) return
    const decision = this.#decisionOn(entry, life)
    const ms = decision?.sleep ? 0 : decision?.againMs
    // What is looked at too early is looked at again; what is used all the time is not given a new timer each time.
    if (ms !== undefined && !(life.look && life.look.at <= Date.now() + ms)) this.#lookIn(entry, life, ms)
  }

  /** The same, when the definition says something else now. */
  watchAnew(entry: Entry, life: Life): void {
    this.#context.cancel(life.look?.timer)
    life.look = undefined
    this.watch(entry, life)
  }

  /** Somebody needs a slot that falls asleep. False: nothing of it is left, or only what must not be used any more. */
  wake(entry: Entry): boolean {
    const next = entry.current
    if (!next.before) return false
    if (next.ending) {
      // What its adapter answers decides (#settle).
      next.state = 'starting'
      return true
    }
    return this.#takeOver(entry, next, next.before)
  }

  /** What falls asleep shall not be used any more. @returns whether anything did */
  dismiss(entry: Entry): boolean {
    const { current } = entry
    return current.before !== undefined && this.#giveUp(entry, current, current.before)
  }

  /** Undefined: nobody knows how it is, or what is wanted of it. */
  #decisionOn(entry: Entry, { status, wokenAt }: Life): Decision | undefined {
    const { definition, group } = entry
    if (!definition || !status) return undefined
    const kept = isKept(definition, group) ? 'min' : this.#context.needed(entry) ? 'release' : undefined
    return decide(definition.scale, kept, { ...status, wokenAt }, Date.now())
  }

  #lookIn(entry: Entry, life: Life, ms: number): void {
    this.#context.cancel(life.look?.timer)
    const wait = Math.min(ms, TIMER_MS)
    const look = (): void => {
      life.look = undefined
      void this.#look(entry, life)
    }
    life.look = { at: Date.now() + wait, timer: this.#context.later(look, wait) }
  }

  async #look(entry: Entry, life: Life): Promise<void> {
    if (!isUp(entry, life)) return
    const status = await life.adapter!.status().catch(() => undefined)
    if (!isUp(entry, life)) return
    if (!status) return life.look ? undefined : this.#lookIn(entry, life, AGAIN_MS)
    life.status = status
    const decision = this.#decisionOn(entry, life)
    if (!decision?.sleep) return this.watch(entry, life)
    entry.unusedMs = decision.unusedMs
    this.#fallAsleep(entry, life, status.activeAt)
  }

  #fallAsleep(entry: Entry, life: Life, since: number): void {
    const { service, group, unusedMs } = entry
    const sessions = life.status?.sessions ?? 0
    this.#context.log('a slot falls asleep', { slot: key(service, group), unused_ms: unusedMs, sessions })
    const next = this.#context.advance(entry)
    next.before = life
    entry.retired.add(life)
    this.#context.changed()
    void this.#settle(entry, next, life, since)
  }

  async #settle(entry: Entry, next: Life, life: Life, since: number): Promise<void> {
    await this.#context.routed(entry)
    if (next.before !== life) return
    const { log, start } = this.#context
    const slot = key(entry.service, entry.group)
    next.ending = true
    const ended = life.adapter ? await life.adapter.sleep(since).catch((error: Error) => error) : true
    next.ending = false
    if (next.before === life) {
      if (ended === false) {
        log('a slot was used while it fell asleep', { slot })
        if (this.#takeOver(entry, next, life)) return
      } else if (ended instanceof Error) {
        log('an adapter does not say whether it sleeps', { slot, reason: ended.message })
        this.#giveUp(entry, next, life)
      } else {
        delete next.before
        log('a slot is asleep', { slot })
      }
    }
    // Requests wait for it, also when another life has taken its place meanwhile.
    if (next.state === 'starting') start(entry, next)
  }

  #giveUp(entry: Entry, next: Life, before: Life): boolean {
    delete next.before
    if (before.adapter) this.#context.drain(entry, before.adapter)
    return true
  }

  /** The adapter goes on in the next life. False: it cannot, and the next life starts one of its own. */
  #takeOver(entry: Entry, next: Life, life: Life): boolean {
    const { adapter } = life
    const usable = adapter && entry.wanted && entry.current === next
    if (!usable) {
      this.#giveUp(entry, next, life)
      return false
    }
    delete next.before
    const left: Life = { generation: life.generation, born: life.born, state: 'up', fingerprint: life.fingerprint }
    if (life.socket !== undefined) left.socket = life.socket
    entry.retired.delete(life)
    life.generation = next.generation
    life.wokenAt = Date.now()
    adapter.rename(clusterName(entry.service, entry.group, next.generation))
    entry.current = life
    this.#context.forget(entry, left)
    this.#context.log('a slot is awake again before it slept', { slot: key(entry.service, entry.group) })
    this.watch(entry, life)
    this.#context.changed()
    return true
  }
}

function isUp(entry: Entry, life: Life): boolean {
  return entry.current === life && life.state === 'up' && life.adapter !== undefined
}
