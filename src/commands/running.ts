// The control plane that runs with a state folder, as the commands talk to it.

import { type ApiAddress, readApiAddress } from '../api/address.ts'
import { readAdminToken } from '../api/token.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine, type Problem } from '../model/problem.ts'
import type { CommandContext } from './command.ts'

/** Its answers come from memory; one that takes longer than this is not coming. */
const TIMEOUT_MS = 10_000

export interface Running {
  readonly address: ApiAddress
  /** The JSON of a path below `/api/v1/mcp`. Throws OperatorError with the words of the API, or when it is gone. */
  readonly get: <T>(path: string) => Promise<T>
  /** What a POST answers; throws as `get` does. @param deadlineMs for what is more than a look into memory */
  readonly post: <T>(path: string, body?: object, deadlineMs?: number) => Promise<T>
  /** What a PUT answers; throws as `get` does. */
  readonly put: <T>(path: string, body: object) => Promise<T>
  /** What a DELETE answers; throws as `get` does. */
  readonly remove: <T>(path: string) => Promise<T>
}

/** Throws OperatorError when none runs. Only an answer shows whether it still answers. */
export async function running({ home }: Pick<CommandContext, 'home'>): Promise<Running> {
  const address = await readApiAddress(home)
  const token = await readAdminToken(home)
  if (!address || token === undefined) throw notRunning(home)
  const ask = <T>(method: string, path: string, body?: object, deadlineMs = TIMEOUT_MS) =>
    answer<T>(home, address, token, { method, path, body, deadlineMs })
  return {
    address,
    get: (path) => ask('GET', path),
    post: (path, body, deadlineMs) => ask('POST', path, body, deadlineMs),
    put: (path, body) => ask('PUT', path, body),
    remove: (path) => ask('DELETE', path),
  }
}

interface Asked {
  readonly method: string
  readonly path: string
  readonly body: object | undefined
  readonly deadlineMs: number
}

async function answer<T>(
  home: string,
  { url, pid }: ApiAddress,
  token: string,
  { method, path, body, deadlineMs }: Asked,
): Promise<T> {
  const response = await fetch(`${url}/api/v1/mcp/${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(deadlineMs),
  }).catch((error: unknown) => {
    if (!isAlive(pid)) throw notRunning(home)
    throw new OperatorError(
      `Berth runs (pid ${pid}), but its control API at ${url} does not answer. ` +
        `Look into ${home}/logs; if it does not come back, end it and run berth up again.`,
      { cause: error },
    )
  })
  if (response.ok) return (await response.json()) as T
  throw new OperatorError(await refusal(response, url))
}

async function refusal(response: Response, url: string): Promise<string> {
  if (response.status === 401) {
    return `The control API at ${url} does not take the token of this state folder. Is --home that of this Berth?`
  }
  const body: unknown = await response.json().catch(() => undefined)
  if (typeof body === 'object' && body !== null && 'problems' in body && Array.isArray(body.problems))
    return (body.problems as Problem[]).map(problemLine).join('\n')
  const detail = typeof body === 'object' && body !== null && 'detail' in body ? body.detail : undefined
  return typeof detail === 'string' ? detail : `The control API at ${url} answered ${response.status}.`
}

/** No control plane runs with this state folder. */
export class NotRunning extends OperatorError {}

function notRunning(home: string): NotRunning {
  return new NotRunning(
    `Berth is not running with the state folder ${home}.\n` +
      'Start it with berth up. If it runs elsewhere, name its state folder with --home or BERTH_HOME.',
  )
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
