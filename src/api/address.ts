// Where a running control plane is found: `api.json` in its state folder, there from when it serves until it stops.

import { renameSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { int, object, optional, string } from 'zod'

import { OperatorError } from '../model/operator-error.ts'

export interface ApiAddress {
  /** Of the control API, such as `http://127.0.0.1:18080`. */
  readonly url: string
  /** The control plane's. */
  readonly pid: number
  /** The Unix socket of Envoy's admin interface. */
  readonly admin: string
  /** Where Envoy's listeners are reached from here, when not at the addresses of their URLs. */
  readonly envoy?: string | undefined
}

const FILE = 'api.json'

const schema = object({ url: string(), pid: int().min(1), admin: string(), envoy: optional(string()) })

/** Undefined: no control plane has served here, or the last one stopped in order. After a crash the file stays. */
export async function readApiAddress(home: string): Promise<ApiAddress | undefined> {
  const file = join(home, FILE)
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new OperatorError(`${file} cannot be read (${code}). Run as the user who started Berth.`, { cause: error })
  }
  const parsed = schema.safeParse(jsonOr(text))
  if (parsed.success) return parsed.data
  throw new OperatorError(`${file} is not what Berth wrote. Restart Berth, or remove the file if it does not run.`)
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Renamed into place, so that nobody reads half of it. */
export function writeApiAddress(home: string, address: ApiAddress): void {
  const unfinished = join(home, `${FILE}.${process.pid}`)
  writeFileSync(unfinished, JSON.stringify(address), { mode: 0o600 })
  renameSync(unfinished, join(home, FILE))
}
