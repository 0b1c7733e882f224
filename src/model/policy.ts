// What one client may do at one service, as the adapter is told that serves both (design §5, Tools).

import { mayUse, type Client } from './client.ts'
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
}

/** By client. A client that is not named may call no tool; where there are none at all, every client may call every tool. */
export type Policies = Readonly<Record<string, Policy>>

/** For services that a client's own lists do not name. */
const OTHERS = '*'

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

/** What the adapter of a client group is told; undefined: none of its clients is restricted. */
export function policiesOf(service: Service, group: string, clients: readonly Client[]): Policies | undefined {
  if (!service.tools && clients.every(({ tools }) => !tools)) return undefined
  const served = clients.filter(({ name }) => group === EVERYONE || name === group)
  const policies = served.flatMap((client): [string, Policy][] => {
    if (!mayUse(client, service)) return []
    const found = groupFor(service, client.name)
    return 'group' in found && found.group === group ? [[client.name, policyOf(service, client)]] : []
  })
  return policies.some(([, policy]) => Object.keys(policy).length > 0) ? Object.fromEntries(policies) : undefined
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

/** Equal for all spellings that somebody could take for the same name. */
export function folded(name: string): string {
  return name
    .normalize('NFKC')
    .replace(/[\p{C}\p{Z}\s]/gu, '')
    .toUpperCase()
    .toLowerCase()
}
