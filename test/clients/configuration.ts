// What each client is told so that it runs without a person: its own configuration, with one MCP server in it, in a home
// of its own. One function per client.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { makeFolder } from '../bed/folders.ts'

/** What the clients call the MCP server. */
export const SERVER = 'tools'
const PROMPT = 'Call the tool and tell what it says.'

export interface Setup {
  /** The client's home; exists. */
  readonly folder: string
  /** Where the model API is, without a slash at the end. */
  readonly model: string
  /** The MCP endpoint. */
  readonly server: string
}

export interface Launch {
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

export function claudeCode({ folder, model, server }: Setup): Launch {
  const headers = { 'x-mcp-client': 'claude-code' }
  const file = written(folder, 'mcp.json', json({ mcpServers: { [SERVER]: { type: 'http', url: server, headers } } }))
  const config = ['--mcp-config', file, '--strict-mcp-config', '--allowedTools', `mcp__${SERVER}`]
  return {
    args: ['-p', PROMPT, ...config],
    env: {
      CLAUDE_CONFIG_DIR: folder,
      ANTHROPIC_BASE_URL: model,
      ANTHROPIC_API_KEY: 'none',
      // Else the model first has to search for tools, and may be asked before the server has listed any.
      ENABLE_TOOL_SEARCH: 'false',
      MCP_CONNECTION_NONBLOCKING: 'false',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      DISABLE_AUTOUPDATER: '1',
    },
  }
}

export function codex({ folder, model, server }: Setup): Launch {
  const lines = [
    'model = "fake"',
    'model_provider = "fake"',
    'approval_policy = "never"',
    'check_for_update_on_startup = false',
    '[analytics]',
    'enabled = false',
    '[model_providers.fake]',
    'name = "fake"',
    `base_url = ${JSON.stringify(`${model}/v1`)}`,
    'wire_api = "responses"',
    `[mcp_servers.${SERVER}]`,
    `url = ${JSON.stringify(server)}`,
    'http_headers = { "x-mcp-client" = "codex" }',
    // Else it asks the model before the server has listed any tools, if that takes long.
    'required = true',
    'startup_timeout_sec = 60',
    // Else it calls only tools that say that they change nothing.
    'default_tools_approval_mode = "approve"',
  ]
  written(folder, 'config.toml', `${lines.join('\n')}\n`)
  return { args: ['exec', '--skip-git-repo-check', PROMPT], env: { CODEX_HOME: folder } }
}

export function gemini({ folder, model, server }: Setup): Launch {
  const settings = {
    security: { auth: { selectedType: 'gemini-api-key' } },
    privacy: { usageStatisticsEnabled: false },
    general: { enableAutoUpdate: false },
    mcpServers: { [SERVER]: { httpUrl: server, headers: { 'x-mcp-client': 'gemini' }, trust: true } },
  }
  written(makeFolder(join(folder, '.gemini')), 'settings.json', json(settings))
  return {
    args: ['-m', 'gemini-2.5-pro', '-p', PROMPT],
    env: {
      GEMINI_CLI_HOME: folder,
      GEMINI_API_KEY: 'none',
      GOOGLE_GEMINI_BASE_URL: model,
      GEMINI_CLI_TRUST_WORKSPACE: 'true',
    },
  }
}

/** It has no model, but options for what to do. @param era its own words: `legacy`, `auto` or `modern` */
export function inspector({ folder, server }: Omit<Setup, 'model'>, era: string, ...method: string[]): Launch {
  const headers = { 'x-mcp-client': 'inspector' }
  const settings = { mcpServers: { [SERVER]: { type: 'streamable-http', url: server, headers, protocolEra: era } } }
  const file = written(folder, 'inspector.json', json(settings))
  return { args: ['--cli', '--config', file, '--server', SERVER, '--quiet', '--method', ...method], env: {} }
}

/**
 * The environment of a client that knows nothing of this machine's user, and whose way out is `proxy`.
 *
 * @param folder its home; exists
 */
export function environment(folder: string, proxy: string): Record<string, string> {
  const { PATH = '', LANG = 'C.UTF-8' } = process.env
  const folders = { XDG_CONFIG_HOME: 'config', XDG_CACHE_HOME: 'cache', XDG_DATA_HOME: 'data', XDG_STATE_HOME: 'state' }
  const below = Object.entries({ ...folders, TMPDIR: 'tmp' }).map(([key, name]) => [
    key,
    makeFolder(join(folder, name)),
  ])
  const proxies = { http_proxy: proxy, https_proxy: proxy, all_proxy: proxy, no_proxy: '127.0.0.1' }
  const upper = Object.entries(proxies).map(([key, value]) => [key.toUpperCase(), value])
  return { PATH, LANG, HOME: folder, ...Object.fromEntries(below), ...proxies, ...Object.fromEntries(upper) }
}

function written(folder: string, name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

function json(value: object): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}
