// Runs command lines inside the test's process, and a control API for them to talk to.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'

import { createApi } from '../../src/api/app.ts'
import type { Planning } from '../../src/api/plan.ts'
import type { Releasing } from '../../src/api/release.ts'
import type { Secrets } from '../../src/api/secrets.ts'
import { type ApiServer, serveApi } from '../../src/api/server.ts'
import { adminToken } from '../../src/api/token.ts'
import type { Actions, ServiceRow, Status, View } from '../../src/api/view.ts'
import { runCommandLine } from '../../src/commands/command-line.ts'
import type { Command, Output } from '../../src/commands/command.ts'
import { COMMANDS } from '../../src/commands/commands.ts'
import { noDeploying, noEnvoy } from '../fixtures/deploying.ts'
import { noPlanning } from '../fixtures/planning.ts'
import { noReleasing } from '../fixtures/releasing.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface Around {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly terminal?: boolean
  readonly commands?: readonly Command[]
}

export async function berth(argv: readonly string[], { cwd, env = {}, terminal, commands }: Around): Promise<Ran> {
  const [stdout, stderr] = [collector(terminal), collector(terminal)]
  const around = { cwd, env, stdout: stdout.stream, stderr: stderr.stream, version: '1.2.3' }
  const code = await runCommandLine(commands ?? COMMANDS, argv, around)
  return { code, out: stdout.text(), err: stderr.text() }
}

function collector(isTTY = false): { stream: Output; text: () => string } {
  let text = ''
  const stream = new Writable({
    decodeStrings: false,
    write(chunk: string, _, done) {
      text += chunk
      done()
    },
  })
  return { stream: Object.assign(stream, { isTTY }), text: () => text }
}

export const STATUS: Status = {
  pid: process.pid,
  uptime_s: 12_000,
  version: '1.2.3',
  ready: true,
  envoy: { pid: 11, version: '1.40.0', state: 'running', restarts: 1 },
  xds: { sent: 0, removed: 0, acknowledged: 0, refused: 0 },
  metrics: 'http://127.0.0.1:19090/metrics',
  services: 2,
  releases: 0,
  problems: 1,
}

/** A control API with this view, found through the state folder `home` as a running control plane's is. */
export async function controlApi(
  home: string,
  view: Partial<View>,
  admin = join(home, 'admin.sock'),
  actions: Partial<Actions> = {},
  planning: Partial<Planning> = {},
  releasing: Releasing = noReleasing,
  secrets: Secrets = noSecrets,
): Promise<ApiServer> {
  await mkdir(home, { recursive: true })
  const whole: View = {
    status: () => STATUS,
    services: () => [],
    problems: () => [],
    snapshot: () => ({}),
    dind: async () => undefined,
    ...view,
  }
  const bugs = (error: Error) => {
    throw error
  }
  const app = createApi({
    secrets,
    tokens: noTokens,
    recorded: nothingRecorded,
    releasing,
    view: whole,
    deploying: noDeploying,
    planning: { ...noPlanning, ...planning },
    actions: { restart: () => 0, restartEnvoy: noEnvoy, logs: async () => [], ...actions },
    token: await adminToken(home),
    onBug: bugs,
  })
  const server = await serveApi(app, { host: '127.0.0.1', port: 0 })
  await writeFile(join(home, 'api.json'), JSON.stringify({ url: server.url, pid: process.pid, admin }))
  return server
}

export function service(row: Partial<ServiceRow> & { name: string }): ServiceRow {
  return {
    port: 11100,
    url: 'http://127.0.0.1:11100/mcp',
    gateway_url: `http://127.0.0.1:10005/${row.name}/mcp`,
    state: 'up',
    health: 'healthy',
    isolation: 'session',
    runtime: 'process',
    source: 'config',
    slots: [],
    ...row,
  }
}
