// Watches one engine: the whole list of its labelled containers, again and again (design §4).

import { setTimeout as delay } from 'node:timers/promises'
import { MANAGED_LABEL, SERVICE_LABEL, type LabelledContainer } from '../model/container.ts'
import type { Problem } from '../model/problem.ts'
import { EngineClient } from './client.ts'
import { labelledContainers } from './containers.ts'
import { engineProblem, type EngineAddress } from './engine.ts'

export type EngineState =
  | { readonly engine: string; readonly reachable: true; readonly containers: readonly LabelledContainer[] }
  | { readonly engine: string; readonly reachable: false; readonly problem: Problem }
  /** Berth brings it up at this moment: nobody's mistake. */
  | { readonly engine: string; readonly reachable: false; readonly starting: true }

/** All in milliseconds. */
export interface WatchTimes {
  /** The list is asked for at least this often, for events that got lost. */
  readonly relist: number
  /** At least this long from one list to the next; more where lists take long (SHARE). */
  readonly coalesce: number
  /** The same where only containers have changed that Berth created: nobody waits for that. */
  readonly coalesceManaged: number
  /** Everything that makes one list must be answered within this, and so must the subscription to events. */
  readonly deadline: number
  /** The waits between attempts double from the first to the longest. */
  readonly firstRetry: number
  readonly longestRetry: number
  /** A connection that lived this long was a good one: its end alone does not say that the engine is gone. */
  readonly steady: number
}

export interface WatchOptions extends Partial<WatchTimes> {
  /** The engine is Berth's own: containers without labels count by their names. */
  readonly named?: boolean
}

export const WATCH_TIMES: WatchTimes = {
  relist: 30_000,
  coalesce: 20,
  coalesceManaged: 1000,
  deadline: 10_000,
  firstRetry: 200,
  longestRetry: 5000,
  steady: 1000,
}

/**
 * What can change a container's facts. `stop` and `kill` are followed by `die` when they have an effect; labels never
 * change.
 */
const EVENTS = ['create', 'start', 'die', 'destroy', 'pause', 'unpause', 'health_status', 'rename']

/**
 * Lists take at most one part in this many of the time: each event of a hundred containers that start together would
 * have the busy engine list them all again.
 */
const SHARE = 4

/** The engine says that events flow before it listens to them itself; what happened since is repeated. */
const REPEAT_SECONDS = 1

/**
 * Yields the whole list after every change, and why the engine cannot be asked, once per reason, when it cannot. Never
 * throws; ends when the signal aborts. A value may equal the one before it. To reconnect, it does everything again from
 * the top, so that there is no way of resuming to get wrong.
 */
export async function* watchEngine(
  address: EngineAddress,
  { named = false, ...times }: WatchOptions,
  signal: AbortSignal,
): AsyncGenerator<EngineState, void, void> {
  const limits = { ...WATCH_TIMES, ...times }
  const engine = address.name
  let retry = limits.firstRetry
  let said: string | undefined
  while (!signal.aborted) {
    const begun = performance.now()
    try {
      for await (const containers of lists(address, limits, named, signal)) {
        said = undefined
        yield { engine, reachable: true, containers }
      }
    } catch (error) {
      if (signal.aborted) return
      if (performance.now() - begun >= limits.steady) {
        retry = limits.firstRetry
        // Proxies before an engine close idle streams; a look tells that from an engine that is gone.
        if (error instanceof EventsEndedError) continue
      }
      const problem = engineProblem(address, error)
      if (problem.message !== said) yield { engine, reachable: false, problem }
      said = problem.message
      await delay(retry, undefined, { signal }).catch(() => undefined)
      retry = Math.min(retry * 2, limits.longestRetry)
    }
  }
}

class EventsEndedError extends Error {
  override readonly name = 'EventsEndedError'
}

/** The life of one connection. Throws when it ends, for whatever reason. */
async function* lists(
  address: EngineAddress,
  times: WatchTimes,
  named: boolean,
  signal: AbortSignal,
): AsyncGenerator<readonly LabelledContainer[], never, void> {
  const client = new EngineClient(address)
  // Also for a consumer that does not come back for the next value: no socket may outlive the signal.
  const close = (): void => client.close()
  signal.addEventListener('abort', close, { once: true })
  try {
    // Events first and the list after them, so that nothing is missed between the two.
    const changes = new Changes()
    const filters = { type: ['container'], event: EVENTS, ...(named ? {} : { label: [SERVICE_LABEL] }) }
    const since = Math.floor(Date.now() / 1000) - REPEAT_SECONDS
    const events = await within(times.deadline, signal, (limit) => client.events(filters, since, limit))
    events.on('data', (chunk: Buffer) => changes.note(isForeign(chunk) ? times.coalesce : times.coalesceManaged))
    events.on('error', (error) => changes.end(error))
    events.on('close', () => changes.end())
    for (;;) {
      const begun = performance.now()
      changes.clear()
      const containers = await within(times.deadline, signal, (limit) =>
        labelledContainers(client, address.name, named, limit),
      )
      const least = begun + SHARE * (performance.now() - begun)
      yield containers
      await changes.next(begun, least, times.relist, signal)
    }
  } finally {
    signal.removeEventListener('abort', close)
    client.close()
  }
}

/** Whether one of these events is of a container that Berth did not create; a part of an event counts as such. */
function isForeign(events: Buffer): boolean {
  const lines = events.toString('latin1').split('\n')
  return lines.some((line) => line !== '' && !line.includes(`"${MANAGED_LABEL}":`))
}

/** When to look again: any number of events in the meantime make one look. */
class Changes {
  /** How long after the last look the next one is due; undefined: nothing has changed. */
  #due: number | undefined
  #ended: EventsEndedError | undefined
  #wake = (): void => undefined

  /** @param due the least of several counts */
  note(due: number): void {
    this.#due = Math.min(due, this.#due ?? Infinity)
    this.#wake()
  }

  end(cause?: Error): void {
    this.#ended ??= new EventsEndedError('its events ended', { cause })
    this.#wake()
  }

  clear(): void {
    this.#due = undefined
  }

  /**
   * Resolves when the next look is due: after something was noted since the last clear, or `relist` ms have passed.
   * Rejects when the events ended.
   *
   * @param begun when the last look began, as of performance.now()
   * @param least not before then, whatever has changed
   */
  async next(begun: number, least: number, relist: number, signal: AbortSignal): Promise<void> {
    const idle = performance.now() + relist
    for (;;) {
      if (this.#ended) throw this.#ended
      signal.throwIfAborted()
      const due = Math.max(least, begun + (this.#due ?? Infinity))
      const wait = Math.min(idle, due) - performance.now()
      if (wait <= 0) return
      await this.#sleep(wait, signal)
    }
  }

  /** Until something is noted or ends, at most `ms`. */
  #sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      const timer = setTimeout(wake, ms)
      signal.addEventListener('abort', wake, { once: true })
      this.#wake = wake
    })
  }
}

/** Runs a call with a signal that aborts with the given one, or with a TimeoutError after `ms`. */
async function within<T>(ms: number, signal: AbortSignal, call: (limit: AbortSignal) => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const limit = new AbortController()
  const abort = (): void => limit.abort(signal.reason)
  const timer = setTimeout(() => limit.abort(new DOMException('no answer in time', 'TimeoutError')), ms)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await call(limit.signal)
  } catch (error) {
    // What the call throws then only says that it was ended, not why.
    throw limit.signal.aborted ? limit.signal.reason : error
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
  }
}
