// Which Consul agent is told of this node's services, as the configuration says now.

import { Registrar, type Registration, type RegistrarOptions } from './consul/registrar.ts'
import type { Problem } from './model/problem.ts'

export interface RegisteringOptions extends Pick<RegistrarOptions, 'node' | 'version' | 'changed' | 'log'> {
  /** What Consul shall know: the whole list of this node. */
  readonly registrations: () => readonly Registration[]
}

export interface Registering {
  /** The agent's address from now on; undefined: there is none. */
  configure(address: string | undefined): void
  /** The list may be another one. */
  sync(): void
  problems(): readonly Problem[]
  /** @param leave nothing of this node stays registered */
  close(leave: boolean): Promise<void>
}

export function createRegistering({ registrations, ...options }: RegisteringOptions): Registering {
  let current: { readonly address: string; readonly registrar: Registrar } | undefined
  return {
    configure(address) {
      if (address === current?.address) return
      const after = current?.registrar.close(true)
      current =
        address === undefined ? undefined : { address, registrar: new Registrar({ ...options, address, after }) }
    },
    sync: () => current?.registrar.sync(registrations()),
    problems: () => current?.registrar.problems() ?? [],
    close: async (leave) => current?.registrar.close(leave),
  }
}
