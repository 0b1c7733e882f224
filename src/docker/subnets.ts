// Whether the addresses of a network that is to be made are free: the engine itself looks only at its own networks, and
// two bridges with the same ones make connections hang without a word (testbed.md §1).

import { BlockList, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { EngineAddress } from './engine.ts'

interface Network {
  readonly Name: string
  readonly IPAM?: { readonly Config?: readonly object[] | null | undefined } | undefined
}

/** Whoever has some of these addresses, in words; undefined: they are free as far as can be seen. */
export function overlapping(subnet: string, networks: readonly Network[], host: EngineAddress): string | undefined {
  for (const { Name, IPAM } of networks) {
    const ranges = (IPAM?.Config ?? []).map((range: { readonly Subnet?: string }) => range.Subnet ?? '')
    const found = ranges.find((range) => overlap(subnet, range))
    if (found !== undefined) return `the Docker network ${Name} (${found})`
  }
  // Of another machine only its engine can say.
  if (!('socketPath' in host)) return undefined
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    const found = addresses.find(({ cidr }) => cidr !== null && overlap(subnet, cidr))
    if (found) return `the network interface ${name} (${found.cidr})`
  }
  return undefined
}

/** Two ranges overlap exactly when one has the other's first address in it. */
function overlap(one: string, other: string): boolean {
  return holds(one, other) || holds(other, one)
}

function holds(range: string, of: string): boolean {
  const [address = '', length] = range.split('/')
  const [candidate = ''] = of.split('/')
  if (isIP(address) === 0 || isIP(address) !== isIP(candidate)) return false
  const family = isIP(address) === 4 ? 'ipv4' : 'ipv6'
  const list = new BlockList()
  list.addSubnet(address, Number(length ?? (family === 'ipv4' ? 32 : 128)), family)
  return list.check(candidate, family)
}
