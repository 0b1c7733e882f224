// One Envoy process: started detached and on record, and waited for until it serves.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

import { OperatorError } from '../model/operator-error.ts'
import { DEFAULT_PROCESS } from '../model/tuning.ts'
import { adminRequest, serverInfo } from './admin.ts'
import type { EnvoyOptions } from './envoy.ts'
import { forgetEnvoy, recordName, type Epoch } from './hot-restart.ts'
import { startOrphan } from './orphan.ts'
import { end, lastLines, runs, type Identity } from './process.ts'

const START_DEADLINE_MS = 30_000
const VALIDATE_TIMEOUT_MS = 20_000

/** A process that runs, and what it was started with. */
export interface EnvoyLife extends Identity {
  /** Undefined: an earlier release of Berth did not write it down. */
  readonly version?: string
  /** Undefined: it cannot be taken over. */
  readonly epoch?: Epoch
}

export function logFileOf({ folders }: EnvoyOptions): string {
  return join(folders.logs, 'envoy.log')
}

/** Of what an Envoy is started with. */
export function fingerprintOf({
  version,
  bootstrap,
  concurrency,
  drain = DEFAULT_PROCESS.drain,
}: EnvoyOptions): string {
  // So that an Envoy that was started without these words is still the same.
  const words = JSON.stringify(drain) === JSON.stringify(DEFAULT_PROCESS.drain) ? [] : [drain]
  return createHash('sha256')
    .update(JSON.stringify([version, bootstrap, concurrency, ...words]))
    .digest('base64url')
    .slice(0, 16)
}

/** On record before it is more than a process. @param epoch undefined: it shall not be taken over */
export async function spawnEnvoy(options: EnvoyOptions, epoch: Epoch | undefined): Promise<EnvoyLife> {
  const { binary, version, concurrency, adminSocket, records, streamSeconds, drain = DEFAULT_PROCESS.drain } = options
  const handover = epoch
    ? ['--base-id', epoch.baseId, '--restart-epoch', epoch.epoch, '--parent-shutdown-time-s', Math.ceil(streamSeconds)]
    : ['--disable-hot-restart']
  const { identity, go } = await startOrphan(
    [
      binary,
      '-c',
      writeBootstrap(options),
      '--concurrency',
      String(concurrency),
      '--drain-time-s',
      String(Math.ceil(drain.time / 1000)),
      '--drain-strategy',
      drain.strategy,
      ...handover.map(String),
      // What is recorded shall be seen soon; of a busy Envoy each 64 KB is written anyway.
      '--file-flush-interval-msec',
      '500',
      '--log-level',
      'warning',
    ],
    logFileOf(options),
    { PATH: process.env.PATH ?? '' },
  )
  const name = recordName(version, epoch)
  records.addProcess({ kind: 'envoy', name, ...identity, fingerprint: fingerprintOf(options), sockets: [adminSocket] })
  go()
  return { ...identity, version, ...(epoch && { epoch }) }
}

/**
 * Resolves when it serves.
 *
 * @throws {OperatorError} when it ends instead, or does neither in time and is ended; with its last words
 */
export async function serving(options: EnvoyOptions, life: EnvoyLife): Promise<void> {
  const until = Date.now() + START_DEADLINE_MS
  const epoch = life.epoch?.epoch ?? 0
  let isItself = epoch === 0
  while (Date.now() < until) {
    if (!runs(life)) {
      forgetEnvoy(options.records, life)
      throw new OperatorError(
        `Envoy ended as soon as it was started (${options.binary}). Its last words:\n${lastLines(logFileOf(options), 8)}\n` +
          '`berth doctor` checks the binary; BERTH_ENVOY names another one.',
      )
    }
    // The one that it takes over from answers there first.
    isItself ||= (await serverInfo(options.adminSocket).catch(() => undefined))?.epoch === epoch
    if (isItself) {
      const answer = await adminRequest(options.adminSocket, 'GET', '/ready', 1000).catch(() => undefined)
      if (answer?.status === 200) return
    }
    await delay(20)
  }
  // A further start would be a second Envoy beside this one.
  await end(life, 0)
  forgetEnvoy(options.records, life)
  throw new OperatorError(
    `Envoy did not become ready within 30 s. Its last words:\n${lastLines(logFileOf(options), 8)}`,
  )
}

/** @throws {OperatorError} with Envoy's words, when the binary does not take the bootstrap */
export async function validate(options: EnvoyOptions): Promise<void> {
  const args = ['--mode', 'validate', '--disable-hot-restart', '--log-level', 'error']
  const env = { PATH: process.env.PATH ?? '' }
  await promisify(execFile)(options.binary, ['-c', writeBootstrap(options), ...args], {
    env,
    timeout: VALIDATE_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  }).catch((error: Error & { readonly stderr?: string }) => {
    const words = (error.stderr || error.message).trim().split('\n').slice(-3).join('\n').slice(0, 1000)
    throw new OperatorError(`${options.binary} does not start with the settings of this Berth:\n${words}`, {
      cause: error,
    })
  })
}

/** Of one that takes over, too: the two are the same node to the xDS server, each with streams of its own. */
function writeBootstrap({ folders, bootstrap }: EnvoyOptions): string {
  const file = join(folders.home, 'envoy.json')
  writeFileSync(file, JSON.stringify(bootstrap, null, 2), { mode: 0o600 })
  return file
}
