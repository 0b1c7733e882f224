// What the clients are told, how they are run, and what README.md says of them.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { eventually } from '../e2e/berth.ts'
import { CASES } from './cases.ts'
import { claudeCode, codex, environment, gemini, inspector } from './configuration.ts'
import { headless } from './headless.ts'
import { PROGRAMS } from './programs.ts'

const model = 'http://127.0.0.1:1'
const server = 'http://127.0.0.1:2/mcp'
let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bc-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const read = (name: string): string => readFileSync(join(folder, name), 'utf8')

test('Claude Code knows one server, by URL and header, and no other', () => {
  const { args, env } = claudeCode({ folder, model, server })
  expect(args).toContain('--strict-mcp-config')
  expect(args[args.indexOf('--mcp-config') + 1]).toBe(join(folder, 'mcp.json'))
  expect(JSON.parse(read('mcp.json'))).toEqual({
    mcpServers: { tools: { type: 'http', url: server, headers: { 'x-mcp-client': 'claude-code' } } },
  })
  expect(env).toMatchObject({ ANTHROPIC_BASE_URL: model, CLAUDE_CONFIG_DIR: folder })
})

test('Codex has the model and the server in its home', () => {
  expect(codex({ folder, model, server }).env).toEqual({ CODEX_HOME: folder })
  const [, provider, tools] = read('config.toml').split(/^\[model_providers.fake\]$|^\[mcp_servers.tools\]$/m)
  expect(provider).toContain('base_url = "http://127.0.0.1:1/v1"\nwire_api = "responses"\n')
  expect(tools).toContain('url = "http://127.0.0.1:2/mcp"\nhttp_headers = { "x-mcp-client" = "codex" }\n')
})

test('Gemini CLI has the server in its settings, and the model in its environment', () => {
  expect(gemini({ folder, model, server }).env).toMatchObject({
    GOOGLE_GEMINI_BASE_URL: model,
    GEMINI_CLI_HOME: folder,
  })
  expect(JSON.parse(read('.gemini/settings.json'))).toMatchObject({
    mcpServers: { tools: { httpUrl: server, headers: { 'x-mcp-client': 'gemini' } } },
  })
})

test('the Inspector is told what to do', () => {
  const { args } = inspector({ folder, server }, 'auto', 'tools/call', '--tool-name', 'echo')
  expect(args.slice(-4)).toEqual(['--method', 'tools/call', '--tool-name', 'echo'])
  expect(JSON.parse(read('inspector.json'))).toEqual({
    mcpServers: {
      tools: { type: 'streamable-http', url: server, headers: { 'x-mcp-client': 'inspector' }, protocolEra: 'auto' },
    },
  })
})

test('the environment has the home, the proxy, and nothing of this machine but the PATH and the language', () => {
  const env = environment(folder, model)
  const strange = Object.entries(env).filter(([, value]) => ![folder, model].some((own) => value.startsWith(own)))
  expect(Object.fromEntries(strange)).toEqual({
    PATH: process.env['PATH'],
    LANG: process.env['LANG'] ?? 'C.UTF-8',
    no_proxy: '127.0.0.1',
    NO_PROXY: '127.0.0.1',
  })
  expect(env).toMatchObject({ HOME: folder, HTTPS_PROXY: model, https_proxy: model })
})

const runs = (program: string, signal = new AbortController().signal): Promise<string> => {
  writeFileSync(join(folder, 'client.cjs'), program)
  const env = { PATH: process.env['PATH']! }
  return headless({ program: join(folder, 'client.cjs'), args: [], env, cwd: folder, signal })
}

test('what a client writes is passed on, and its failure with its last words', async () => {
  expect(await runs('console.error("not this"); console.log("done")')).toBe('done\n')
  await expect(runs('console.error("no key"); process.exitCode = 3')).rejects.toThrow(/exit code 3.*\nno key/)
})

test('a client that does not end is ended with what it has started', async () => {
  const stop = new AbortController()
  const started = 'const c = require("node:child_process").spawn("sleep", ["1000"], { stdio: "inherit" }); '
  const end = runs(
    `${started}require("node:fs").writeFileSync("pid", String(c.pid)); console.log("so far")`,
    stop.signal,
  )
  const pid = await eventually(() => Number(/^\d+$/.exec(read('pid'))![0]))
  process.kill(pid, 0)
  stop.abort(new Error('too late'))
  await expect(end).rejects.toThrow(/^too late; it said:/)
  await eventually(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'))
})

test('README.md names the versions and revisions that are tried', () => {
  const readme = readFileSync(join(import.meta.dirname, '..', '..', 'README.md'), 'utf8')
  const names = { 'claude-code': 'Claude Code', codex: 'Codex', gemini: 'Gemini CLI', inspector: 'MCP Inspector' }
  for (const [client, { version }] of Object.entries(PROGRAMS)) {
    const revisions = CASES.filter((one) => one.client === client).map(({ revision }) => revision)
    const name = names[client as keyof typeof names]
    const rows = readme.split('\n').filter((line) => line.startsWith(`| ${name} |`))
    expect(rows).toEqual([`| ${name} | ${version} | ${revisions.join(', ')} |`])
  }
})
