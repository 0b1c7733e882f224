// One control plane per state folder.

import { join } from 'node:path'

import { OperatorError } from '../model/operator-error.ts'
import { openStore, type Store } from './store.ts'

/**
 * The store of a state folder, owned by this process.
 *
 * @param alive whether the process of an earlier owner still runs
 * @throws {OperatorError} when another control plane has it, or it cannot be used
 */
export function openOwnStore(
  home: string,
  self: { readonly pid: number; readonly birth: string },
  alive: (process: { readonly pid: number; readonly birth: string }) => boolean,
): Store {
  const file = join(home, 'berth.db')
  let store: Store
  try {
    store = openStore(file)
  } catch (error) {
    throw new OperatorError(
      `The state file ${file} cannot be used: ${(error as Error).message}. Move it away to start afresh, or set BERTH_HOME.`,
      { cause: error },
    )
  }
  const other = store.takeOwnership(self.pid, self.birth, (pid, birth) => alive({ pid, birth }))
  if (other === undefined) return store
  store.close()
  throw new OperatorError(
    `Berth runs already for ${home}, as process ${other}. \`berth down\` ends it; BERTH_HOME names another state folder.`,
  )
}
