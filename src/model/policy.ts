// What one client may do at one service, as the adapter is told that serves both (design §5, Tools).

import { mayUse, type Client, type Pace } from './client.ts'
import { limitsOf } from './limits.ts'
import { EVERYONE, globMatches } from './names.ts'
import type { Service } from './service.ts'
import { groupFor } from './slot.ts'
import type { Problem } from './problem.ts'

/** The tools that a client has: those that each of the lists `allow` has, without those of `deny`. */
export interface ToolPolicy {
  readonly allow: readonly (readonly string[])[]
  readonly deny: readonly string[]
}

export interface Policy {
  /** Absent: all tools. */
  readonly tools?: ToolPolicy
  /** Absent: none. */
  readonly limits?: ClientLimits
}

/** How much of the service it gets. */
export interface ClientLimits extends Pace {
  /** Its name, for words to the client. */
  readonly tier: string
  /** By globs over names of tools: a call is within the limits of each that fits it. */
  readonly tools?: Readonly<Record<string, Pace>>
}

/** By client. A client that is not named may call no tool; where none has `tools`, every client may call every tool. */
export type Policies = Readonly<Record<string, Policy>>

/** For services that a client's own lists do not name. */
const OTHERS = '*'

/** Without its limits. */
export function policyOf(service: Pick<Service, 'name' | 'tools'>, client: Pick<Client, 'tools'>): Policy {
  const { allow, deny = [] } = service.tools ?? {}
  const own = listOf(client.tools, service.name) ?? listOf(client.tools, OTHERS)
  const lists = [allow, own].filter((list) => list !== undefined && !list.includes('*')) as (readonly string[])[]
  return lists.length === 0 && deny.length === 0 ? {} : { tools: { allow: lists, deny } }
}

/** A service may be called `constructor`. */
function listOf(lists: Client['tools'], service: string): readonly string[] | undefined {
  return lists && Object.hasOwn(lists, service) ? lists[service] : undefined
}

/** What the adapter of a client group is told; undefined: it has no clients. */
export function policiesOf(service: Service, group: string, clients: readonly Client[]): Policies | undefined {
  const served = clients.filter(({ name }) => group === EVERYONE || name === group)
  const policies = served.flatMap((client): [string, Policy][] => {
    if (!mayUse(client, service)) return []
    const found = groupFor(service, client.name)
    return 'group' in found && found.group === group
      ? [[client.name, { ...policyOf(service, client), limits: limitsOf(service, client) }]]
      : []
  })
  return policies.length > 0 ? Object.fromEntries(policies) : undefined
}

/** Lists that restrict nothing, because nobody is called so: a misspelled one would be a hole that nobody sees. */
export function idleToolLists(clients: readonly Client[], services: readonly Pick<Service, 'name'>[]): Problem[] {
  const names = new Set([OTHERS, ...services.map(({ name }) => name)])
  return clients.flatMap((client) =>
    Object.keys(client.tools ?? {})
      .filter((name) => !names.has(name))
      .map((name) => ({
        about: `client ${client.name}`,
        where: `clients.${client.name}.tools`,
        message: `There is no service ${name}, so that its list of tools restricts nothing.`,
        remedy: 'Correct the name, or remove the list.',
      })),
  )
}

/**
 * Whether a policy lets a tool through. A name is what it is where it is allowed. Where it is denied, so are its other
 * spellings: a server may take upper case, full-width letters or an invisible character for the same name.
 */
export function toolAllowed({ allow, deny }: ToolPolicy, name: string): boolean {
  if (!allow.every((list) => list.some((glob) => globMatches(glob, name)))) return false
  if (deny.length === 0) return true
  const plain = folded(name)
  return !deny.some((glob) => globMatches(glob, name) || globMatches(folded(glob), plain))
}

/** Whether a name, or another spelling that a server may take for it, fits. */
export function toolMatches(glob: string, name: string): boolean {
  return globMatches(glob, name) || globMatches(folded(glob), folded(name))
}

/** Equal for all spellings that somebody could take for the same name. */
export function folded(name: string): string {
  return name
    .normalize('NFKC')
    .replace(/[\p{C}\p{Z}\s]/gu, '')
    .toUpperCase()
    .toLowerCase()
}

/** What a client is told that has sent too many requests; Envoy and adapters say the same. */
export function rateWords({ client, tier, service, perMinute }: Readonly<Record<RateWord, string>>): string {
  return (
    `Client ${client} may send ${perMinute} requests a minute to service ${service}, and has. Wait as long as Retry-After ` +
    `says; tiers.${tier}.requests_per_minute or clients.${client}.rate_limit in berth.yaml raises it.`
  )
}

type RateWord = 'client' | 'tier' | 'service' | 'perMinute'

/** What a client is told that has too many requests under way. */
export function crowdWords({
  client,
  tier,
  service,
}: Readonly<Record<Exclude<RateWord, 'perMinute'>, string>>): string {
  return (
    `Too many requests of client ${client} are under way at service ${service}. Try again when one is answered; ` +
    `tiers.${tier}.concurrent_requests or clients.${client}.concurrent_requests in berth.yaml lets more of them run, ` +
    `limits.queue of the service lets more wait.`
  )
}
