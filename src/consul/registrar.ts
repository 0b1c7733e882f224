// Keeps the registrations of this node in the local Consul agent as they should be, whatever happens to the agent.
// Nothing of a request depends on it (design §1): without Consul only other machines do not see what changes here.

import type { Problem } from '../model/problem.ts'
import { AgentClient, ConsulError } from './client.ts'
import { agrees, belongsTo, type Definition, definitionOf, ID_PREFIX, type Registration } from './registration.ts'

export type { Registration } from './registration.ts'

export interface RegistrarOptions {
  /** Of the HTTP API of this machine's agent: host and port. */
  readonly address: string
  /** The name of this Berth, different from that of every other one in Consul's datacenter. */
  readonly node: string
  /** Of Berth. */
  readonly version: string
  readonly log: (message: string, fields?: object) => void
  /** `problems()` is different now. */
  readonly changed: () => void
  /** Settles when the one before has left: its agent may be the same at another address, and its ids are the same. */
  readonly after?: Promise<void> | undefined
}

/** At least this long from the end of one look to the next. */
const COALESCE_MS = 25
/** The agent may have been restarted or wiped without a sign; then it is right again after this. */
const RECHECK_MS = 10_000
const FIRST_RETRY_MS = 200
const LONGEST_RETRY_MS = 5000
/** The end of a younger connection is no sign: there are proxies that close each one after its answer. */
const STEADY_MS = 1000
/** How long all deregistrations may take when Berth ends. */
const LEAVE_MS = 3000

/** What a look could not do, beside the problems that the agent itself is in. */
interface Leftovers {
  /** Their ids belong to somebody else. */
  readonly taken: readonly Definition[]
  readonly refused: readonly { readonly name: string; readonly error: ConsulError }[]
}

export class Registrar {
  readonly #options: RegistrarOptions
  readonly #client: AgentClient
  #wanted: readonly Registration[] = []
  #problems: readonly Problem[] = []
  #loop: Promise<void> | undefined
  /** Something happened since the last look began. */
  #dirty = false
  /** The reason is that a connection ended. */
  #cut = false
  #closed = false
  #wake: () => void = () => undefined

  /** @throws {TypeError} when the address is none, which the configuration has to find before */
  constructor(options: RegistrarOptions) {
    this.#options = options
    this.#client = new AgentClient(options.address, (age) => {
      if (age < STEADY_MS) return
      this.#cut = true
      this.#changed()
    })
  }

  /**
   * The whole list of this node. What the agent has of this node beside it is deregistered, so nothing happens before
   * the first call. Never waits; a list replaces the one before, done or not.
   */
  sync(services: readonly Registration[]): void {
    if (this.#closed) return
    const before = this.#wanted
    this.#wanted = services
    if (!this.#loop) this.#loop = this.#run()
    // The health alone is no reason to ask: Consul follows it by itself.
    else if (withoutHealth(before) !== withoutHealth(services)) this.#changed()
  }

  /** Why the registrations are not as they should be, as of the last look. */
  problems(): Problem[] {
    return [...this.#problems]
  }

  /**
   * @param deregister whether this node's services leave Consul. If the agent does not let them within 3 s they stay,
   * and critical as soon as Envoy has ended
   */
  async close(deregister: boolean): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#client.close()
    this.#wake()
    await this.#loop
    if (deregister) await this.#leave()
  }

  #changed(): void {
    this.#dirty = true
    this.#wake()
  }

  /** Events only say "look again" (design §4); each look compares everything. */
  async #run(): Promise<void> {
    await this.#options.after
    let retry = FIRST_RETRY_MS
    while (!this.#closed) {
      this.#dirty = false
      this.#cut = false
      const done = await this.#look()
      if (done) {
        retry = FIRST_RETRY_MS
        await this.#pause(COALESCE_MS, () => this.#closed)
        await this.#pause(RECHECK_MS, () => this.#closed || this.#dirty)
        // What an agent says while it ends its connections is no news: it is about to be gone, or back.
        if (this.#cut) await this.#pause(FIRST_RETRY_MS, () => this.#closed)
      } else {
        // An agent in trouble is not asked more often because services change.
        await this.#pause(retry, () => this.#closed)
        retry = Math.min(retry * 2, LONGEST_RETRY_MS)
      }
    }
  }

  /** Resolves after this time, or as soon as the condition holds. */
  #pause(ms: number, over: () => boolean): Promise<void> {
    if (over()) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        if (!over()) return
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** True when the agent did all that was asked of it. */
  async #look(): Promise<boolean> {
    let problems: readonly Problem[]
    let done = false
    try {
      const { taken, refused } = await this.#apply()
      problems = [...taken.map(takenProblem), ...refusedProblem(this.#options.address, refused)]
      done = refused.length === 0
    } catch (error) {
      if (!(error instanceof ConsulError)) throw error
      problems = [consulProblem(this.#options.address, error)]
    }
    if (this.#closed || JSON.stringify(problems) === JSON.stringify(this.#problems)) return done
    this.#problems = problems
    this.#options.changed()
    return done
  }

  /** @throws {ConsulError} when the agent cannot be asked; one that refuses single services gets to see the others */
  async #apply(): Promise<Leftovers> {
    const { node, log } = this.#options
    const wanted = this.#definitions()
    const present = await this.#client.services(ID_PREFIX)
    const checked = await this.#client.checked(ID_PREFIX)
    const taken: Definition[] = []
    const refused: { name: string; error: ConsulError }[] = []
    const attempt = async (what: string, id: string, name: string, call: Promise<void>): Promise<void> => {
      try {
        await call
        log(what, { id })
      } catch (error) {
        if (!(error instanceof ConsulError) || error.kind !== 'refused') throw error
        refused.push({ name, error })
      }
    }
    for (const [id, found] of present) {
      if (!belongsTo(found, node) || wanted.has(id)) continue
      await attempt('deregistered in Consul', id, found.Service, this.#client.deregister(id))
    }
    for (const [id, definition] of wanted) {
      const found = present.get(id)
      if (found && !belongsTo(found, node)) taken.push(definition)
      else if (!found || !agrees(found, definition) || !checked.has(id)) {
        await attempt('registered in Consul', id, definition.name, this.#client.register(definition))
      }
    }
    return { taken, refused }
  }

  #definitions(): ReadonlyMap<string, Definition> {
    const { node, version } = this.#options
    return new Map(
      this.#wanted.map((service) => {
        const definition = definitionOf(service, node, version)
        return [definition.id, definition]
      }),
    )
  }

  async #leave(): Promise<void> {
    const { address, node, log } = this.#options
    const client = new AgentClient(address, () => undefined)
    const late = setTimeout(() => client.close(), LEAVE_MS)
    try {
      for (const [id, found] of await client.services(ID_PREFIX))
        if (belongsTo(found, node)) await client.deregister(id)
    } catch (error) {
      if (!(error instanceof ConsulError)) throw error
      log('services may be left in Consul', { reason: error.message })
    } finally {
      clearTimeout(late)
      client.close()
    }
  }
}

function withoutHealth(services: readonly Registration[]): string {
  return JSON.stringify(services.map((service) => ({ ...service, healthy: undefined })))
}

function consulProblem(address: string, { kind, message }: ConsulError): Problem {
  const words: Record<ConsulError['kind'], readonly [what: string, remedy: string]> = {
    silent: [`Consul at ${address} does not answer (${message})`, 'Start it, or correct consul.address.'],
    refused: [`Consul at ${address} refuses (${message})`, 'Look into its log, and at its ACL rules.'],
    foreign: [`What answers at ${address} is not Consul's agent (${message})`, 'Correct consul.address.'],
  }
  const [what, remedy] = words[kind]
  return { about: 'registration', where: 'consul', message: `${what}; traffic is not affected.`, remedy }
}

/** One for all services: mostly the reason is the same for each. */
function refusedProblem(address: string, refused: Leftovers['refused']): Problem[] {
  const [first] = refused
  if (!first) return []
  const which = refused.length === 1 ? first.name : `${first.name} and ${refused.length - 1} more`
  return [consulProblem(address, new ConsulError('refused', `${which}: ${first.error.message}`))]
}

function takenProblem({ id, name }: Definition): Problem {
  return {
    about: `service ${name.slice(ID_PREFIX.length)}`,
    where: 'consul',
    message: `The id ${id} in Consul belongs to somebody else, so the service is not registered.`,
    remedy: `Deregister that one (\`consul services deregister -id=${id}\`), or give this service another name.`,
  }
}
