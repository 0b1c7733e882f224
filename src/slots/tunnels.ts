// The ways to all engines behind ssh.

import { rmSync } from 'node:fs'

import type { TunnelledEngine } from '../model/engine.ts'
import type { Problem } from '../model/problem.ts'
import type { ProcessRecord } from '../model/record.ts'
import { end } from './process.ts'
import { adoptable, END_MS, Tunnel, type TunnelOptions } from './tunnel.ts'

export class Tunnels {
  readonly #options: TunnelOptions
  /** By the socket on this machine. */
  readonly #all = new Map<string, Tunnel>()
  readonly #ending = new Set<Promise<unknown>>()
  /** The last of them by its socket, which it removes: the next one there waits for that. */
  readonly #closing = new Map<string, Promise<void>>()
  /** Clients of an earlier control plane, until it is known which engines there are. */
  #found: readonly ProcessRecord[] = []

  constructor(options: TunnelOptions) {
    this.#options = options
  }

  /** Before the first `keep`. */
  adopt(records: readonly ProcessRecord[]): void {
    this.#found = records.filter(({ kind }) => kind === 'ssh')
  }

  /** Makes exactly the ways to these engines exist. */
  keep(engines: readonly TunnelledEngine[]): void {
    const wanted = new Set(engines.map(({ socketPath }) => socketPath))
    for (const [socketPath, tunnel] of this.#all) {
      if (wanted.has(socketPath)) continue
      this.#all.delete(socketPath)
      const closing = tunnel.close()
      const forget = (): void => {
        if (this.#closing.get(socketPath) === closing) this.#closing.delete(socketPath)
      }
      this.#closing.set(socketPath, closing)
      closing.then(forget, forget)
      this.#later(closing)
    }
    const found = new Set(this.#found)
    this.#found = []
    for (const engine of engines) {
      if (this.#all.has(engine.socketPath)) continue
      const adopted = adoptable(engine, [...found])
      if (adopted) found.delete(adopted)
      const free = this.#closing.get(engine.socketPath)
      this.#all.set(engine.socketPath, new Tunnel(engine, this.#options, adopted, free))
    }
    for (const record of found) this.#later(this.#end(record))
  }

  isOpen({ socketPath }: TunnelledEngine): boolean {
    return this.#all.get(socketPath)?.isOpen ?? false
  }

  /** Resolves when the way to an engine is open, or the first attempt has failed. */
  async tried({ socketPath }: TunnelledEngine): Promise<void> {
    await this.#all.get(socketPath)?.tried
  }

  problems(): Problem[] {
    return [...this.#all.values()].flatMap(({ problem }) => (problem ? [problem] : []))
  }

  /** Leaves all of them for the next control plane. */
  release(): void {
    for (const tunnel of this.#all.values()) tunnel.release()
  }

  /** Ends all of them. */
  async close(): Promise<void> {
    this.keep([])
    await Promise.allSettled(this.#ending)
  }

  /** One that ended already, or leads where nobody wants to go any more. */
  async #end(record: ProcessRecord): Promise<void> {
    await end(record, END_MS)
    this.#options.records.removeProcess(record.pid, record.birth)
    // A new client may have made it its own meanwhile.
    for (const socket of record.sockets) if (!this.#all.has(socket)) rmSync(socket, { force: true })
  }

  #later(work: Promise<void>): void {
    this.#ending.add(work)
    work
      .catch((error: Error) => this.#options.log('an ssh client does not end', { reason: error.message }))
      .finally(() => this.#ending.delete(work))
      .catch(() => undefined)
  }
}
