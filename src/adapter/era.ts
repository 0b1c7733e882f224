// Which eras a slot's server speaks: what is configured, what was found out earlier, and the probe (mcp.md §2, Probe).

import type { Era } from '../model/service.ts'
import type { Bounds } from './bounds.ts'
import type { RequestMessage, ResponseMessage } from './message.ts'
import { errorCodeOf } from './modern-exchange.ts'
import { ModernProcess } from './modern-process.ts'
import type { ProcessPool } from './pool.ts'
import { CODE } from './error.ts'
import { findPath } from './json.ts'
import { ownRequest } from './own-request.ts'
import type { AdapterSpec, ErasKnown } from './spec.ts'

const CONFIGURED: Readonly<Record<Exclude<Era, 'auto'>, ErasKnown>> = {
  legacy: { legacy: true, modern: false },
  modern: { legacy: false, modern: true },
  dual: { legacy: true, modern: true },
}

/** Sends a request of the adapter's own. Resolves with the response, or undefined when none came. */
export function askModern(process: ModernProcess, request: RequestMessage): Promise<ResponseMessage | undefined> {
  return new Promise((settle) => {
    process.send(request, undefined, {
      logs: false,
      own: true,
      notified: () => undefined,
      settled: settle,
      failed: () => settle(undefined),
    })
  })
}

export class Eras {
  readonly #pool: ProcessPool
  readonly #bounds: Bounds
  readonly #changed: () => void
  readonly #found: (process: ModernProcess) => void
  #verdict: { legacy?: boolean; modern?: boolean }
  readonly #searches: boolean
  /** A server that was too slow to tell counts as one of the legacy era here, and nobody else is told so. */
  #silent = false
  #probe: Promise<boolean> | undefined

  /** `found` gets the process of a probe that turned out to be of the modern era, for serving. */
  constructor(
    spec: AdapterSpec,
    pool: ProcessPool,
    bounds: Bounds,
    changed: () => void,
    found: (process: ModernProcess) => void,
  ) {
    this.#pool = pool
    this.#bounds = bounds
    this.#changed = changed
    this.#found = found
    this.#verdict = { ...known(spec) }
    this.#searches = spec.era === 'auto' && spec.server.kind !== 'container'
  }

  get verdict(): ErasKnown {
    return this.#verdict
  }

  /** The server has answered `initialize`. */
  isLegacy(): void {
    if (!this.#verdict.legacy) this.#note({ legacy: true })
  }

  /**
   * Whether requests of the modern era can go to the server as they are. Finds out once, on a process of its own:
   * some servers end at the first request that is no `initialize`. Rejects with a RefusalError when it cannot start.
   */
  modern(): Promise<boolean> {
    if (this.#verdict.modern !== undefined) return Promise.resolve(this.#verdict.modern)
    if (this.#silent) return Promise.resolve(false)
    this.#probe ??= this.#ask().finally(() => (this.#probe = undefined))
    return this.#probe
  }

  /** What was known is wrong: the server has changed. Finds out anew, where that is the adapter's to do. */
  again(): Promise<boolean> {
    if (!this.#searches) return Promise.resolve(false)
    this.#silent = false
    this.#verdict = {}
    return this.modern()
  }

  /** The server has refused `initialize`; true when that is because it speaks the modern era only. */
  async isModernOnly(): Promise<boolean> {
    if (!(await this.modern())) return false
    this.#note({ legacy: false })
    return true
  }

  async #ask(): Promise<boolean> {
    const { connection, begun } = this.#pool.probe((context) => new ModernProcess(context))
    await begun
    const deadline = Promise.withResolvers<'silent'>()
    const timer = setTimeout(() => deadline.resolve('silent'), this.#bounds.probeMs)
    const answer = await Promise.race([askModern(connection, ownRequest('server/discover')), deadline.promise])
    clearTimeout(timer)
    const modern = typeof answer === 'object' && tellsModern(answer)
    if (modern && connection.alive) {
      this.#pool.keep(connection)
      this.#found(connection)
    } else this.#pool.release(connection)
    if (answer === 'silent') this.#silent = true
    else this.#note({ modern })
    return modern
  }

  #note(verdict: ErasKnown): void {
    this.#verdict = { ...this.#verdict, ...verdict }
    this.#changed()
  }
}

/** A DiscoverResult, or the one error that only a server of that era gives (mcp.md §2, Probe). */
function tellsModern(answer: ResponseMessage): boolean {
  if (answer.isError) return errorCodeOf(answer.text) === CODE.unsupportedVersion
  const versions = findPath(answer.text, 0, 'result', 'supportedVersions')
  return versions !== undefined && answer.text[versions.start] === '['
}

/** A container that runs already has one stdin: it is never probed, and speaks one era for life (mcp.md §0.2). */
function known(spec: AdapterSpec): ErasKnown {
  if (spec.server.kind === 'container') {
    return spec.era === 'modern' || spec.era === 'dual' ? CONFIGURED.modern : CONFIGURED.legacy
  }
  return spec.era === 'auto' ? (spec.eras ?? {}) : CONFIGURED[spec.era]
}
