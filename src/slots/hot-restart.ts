// What Envoy's hot restart needs: two processes find each other by a base id, in a few bytes of shared memory and by
// domain sockets of no file. Envoy itself never removes the shared memory, so whoever sees the last process go does.

import { randomBytes, randomInt } from 'node:crypto'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

import type { ProcessRecord } from '../model/record.ts'
import type { ProcessRecords } from './envoy.ts'
import type { Identity } from './process.ts'

/** An Envoy can be taken over by one with the same base id and the next epoch. */
export interface Epoch {
  readonly baseId: number
  readonly epoch: number
}

/** Where Linux has POSIX shared memory. */
const SHARED = '/dev/shm'
/** Envoy multiplies it by ten and keeps the product in 32 bits. */
const BASE_IDS = 2 ** 28
const PAGE_BYTES = 4096

/** Of an Envoy that takes over from nobody. Nobody else's: of so many, two are not equal by chance. */
export function firstEpoch(): Epoch {
  return { baseId: randomInt(1, BASE_IDS), epoch: 0 }
}

/**
 * Why this machine has no shared memory for Envoy, which crashes where it cannot have any: some containers have none, or
 * a full one. Undefined: it has.
 */
export function whyNotShared(folder: string = SHARED): string | undefined {
  const probe = join(folder, `berth-${randomBytes(8).toString('hex')}`)
  let file: number | undefined
  try {
    file = openSync(probe, 'wx', 0o600)
    writeSync(file, Buffer.alloc(PAGE_BYTES))
    return undefined
  } catch (error) {
    return `there is no shared memory for it (${(error as NodeJS.ErrnoException).code ?? String(error)} in ${folder})`
  } finally {
    if (file !== undefined) {
      closeSync(file)
      rmSync(probe, { force: true })
    }
  }
}

/** The name of an Envoy's record: what whoever adopts it must know. @param epoch undefined: it cannot be taken over */
export function recordName(version: string, epoch: Epoch | undefined): string {
  return epoch ? `envoy ${version} ${epoch.baseId}.${epoch.epoch}` : `envoy ${version}`
}

export function parseRecordName(name: string): { readonly version?: string; readonly epoch?: Epoch } {
  const [, version, id] = name.split(' ')
  const [baseId, epoch] = (id ?? '').split('.').map(Number)
  return {
    ...(version === undefined ? {} : { version }),
    ...(id !== undefined && baseId !== undefined && epoch !== undefined ? { epoch: { baseId, epoch } } : {}),
  }
}

/** Forgets an Envoy that has ended, and its shared memory with the last one that has it. */
export function forgetEnvoy(records: ProcessRecords, gone: Identity): void {
  const isGone = (record: ProcessRecord): boolean => record.pid === gone.pid && record.birth === gone.birth
  const known = records.processes().filter(({ kind }) => kind === 'envoy')
  const baseId = baseIdOf(known.find(isGone))
  records.removeProcess(gone.pid, gone.birth)
  if (baseId === undefined || known.some((record) => !isGone(record) && baseIdOf(record) === baseId)) return
  rmSync(join(SHARED, `envoy_shared_memory_${baseId * 10}`), { force: true })
}

function baseIdOf(record: ProcessRecord | undefined): number | undefined {
  return record && parseRecordName(record.name).epoch?.baseId
}
