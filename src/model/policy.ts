// What one client may do at one service, as the adapter is told that serves both (design §5, Tools).

import { mayUse, type Client, type Pace } from './client.ts'
import { limitsOf } from './limits.ts'
import { EVERYONE, globMatches } from './names.ts'
import type { Service } from './service.ts'
import { groupFor } from './slot.ts'

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

/** By client. A client that is not named may call no tool; where there are none at all, every client may call every tool. */
export type Policies = Readonly<Record<string, Policy>>

/** For services that a client's own lists do not name. */
const OTHERS = '*'

export function policyOf(service: Pick<Service, 'name' | 'tools'>, client: Client): Policy {
  const { allow, deny = [] } = service.tools ?? {}
  const own = listOf(client.tools, service.name) ?? listOf(client.tools, OTHERS)
  const lists = [allow, own].filter((list) => list !== undefined && !list.includes('*')) as (readonly string[])[]
  const limits = limitsOf(service, client)
  return lists.length === 0 && deny.length === 0 ? { limits } : { limits, tools: { allow: lists, deny } }
}

/** A service may be called `constructor`. */
function listOf(lists: Client['tools'], service: string): readonly string[] | undefined {
  return lists && Object.hasOwn(lists, service) ? lists[service] : undefined
}

/** What the adapter of a client group is told; undefined: none of its clients is restricted. */
export function policiesOf(service: Service, group: string, clients: readonly Client[]): Policies | undefined {
  const served = clients.filter(({ name }) => group === EVERYONE || name === group)
  const policies = served.flatMap((client): [string, Policy][] => {
    if (!mayUse(client, service)) return []
    const found = groupFor(service, client.name)
    return 'group' in found && found.group === group ? [[client.name, policyOf(service, client)]] : []
  })
  return policies.some(([, policy]) => Object.keys(policy).length > 0) ? Object.fromEntries(policies) : undefined
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
    `Client ${client} has as many requests under way at service ${service} as may run and wait. Try again when one is ` +
    `answered; tiers.${tier}.concurrent_requests or clients.${client}.concurrent_requests in berth.yaml lets more of them ` +
    `run, limits.queue of the service lets more wait.`
  )
}
