// What a fleet of all ready services consists of: their part of berth.yaml, what clients ask them, what must be granted.

import type { CatalogEntry, Folder } from '../../src/catalog/entry.ts'
import { CATALOG } from '../../src/catalog/entries.ts'
import { imageOf } from '../../src/catalog/recipe.ts'
import { FILES_FOLDER } from '../../src/docker/dind-definition.ts'

/** Everything of the catalog that runs without an account elsewhere; PostgreSQL runs here. */
export const FLEET: readonly CatalogEntry[] = CATALOG.filter(
  ({ name, secrets }) => name === 'postgres' || secrets.every(({ required }) => !required),
)

/** The clients, and what their tiers grant a container: cores and bytes. */
export const CLIENTS = {
  'claude-code': { tier: 'enterprise', cpus: 8, memory: 8e9 },
  codex: { tier: 'free', cpus: 0.5, memory: 512e6 },
  gemini: { tier: 'pro', cpus: 2, memory: 2e9 },
} as const

export type ClientName = keyof typeof CLIENTS
export const CLIENT_NAMES = Object.keys(CLIENTS) as ClientName[]

/** What some services are granted: above one tier and below another, below all, nothing. */
const RESOURCES = [{ cpu: 1, memory: '600MB', pids: 200 }, { cpu: 0.4, memory: '400MB' }, undefined] as const
const GRANTED = [
  { cpus: 1, memory: 600e6, pids: 200 },
  { cpus: 0.4, memory: 400e6, pids: 256 },
  { cpus: Infinity, memory: Infinity, pids: 256 },
] as const

/** A service of the fleet as berth.yaml has it. @param dsnFile holds the address of the database */
export function serviceOf(entry: CatalogEntry, dsnFile: string): object {
  const index = FLEET.indexOf(entry)
  const { name, network, folders, settings } = entry
  const examples = settings.filter(({ kind }) => kind === 'example').map((setting) => [setting.name, setting.value])
  return {
    image: imageOf(entry),
    runtime: 'dind',
    isolation: isolationOf(entry),
    network: network.mode,
    volumes: folders.map(({ path, access }) => `${FILES_FOLDER}/${name}:${path}:${access}`),
    env: Object.fromEntries(examples) as object,
    secrets: name === 'postgres' ? { DSN: { file: dsnFile } } : {},
    resources: RESOURCES[index % 3] ?? {},
    // Seventy-five of them begin at once, on whatever cores there are.
    limits: { timeout: '10m' },
  }
}

/** Half of the services each. */
export function isolationOf(entry: CatalogEntry): 'client' | 'session' {
  return FLEET.indexOf(entry) % 2 === 0 ? 'session' : 'client'
}

/** What the engine shall say about a container of this service and client. @param cpus that the engine has */
export function grantedTo(entry: CatalogEntry, client: ClientName, cpus: number): object {
  const service = GRANTED[FLEET.indexOf(entry) % 3]!
  const tier = CLIENTS[client]
  return {
    NanoCpus: Math.min(service.cpus, tier.cpus, cpus) * 1e9,
    Memory: Math.min(service.memory, tier.memory),
    MemorySwap: Math.min(service.memory, tier.memory),
    PidsLimit: service.pids,
    NetworkMode: entry.network.mode,
    ReadonlyRootfs: true,
    CapDrop: ['ALL'],
    CapAdd: null,
    SecurityOpt: ['no-new-privileges'],
    Privileged: false,
    ...(entry.folders.length > 0 && { Mounts: entry.folders.map((folder) => mountOf(entry, folder)) }),
  }
}

function mountOf({ name }: CatalogEntry, { path, access }: Folder): object {
  const readOnly = access === 'ro' ? { ReadOnly: true } : {}
  return { Type: 'bind', Source: `${FILES_FOLDER}/${name}`, Target: path, ...readOnly }
}

/** For the engine's own shell: the folders of the services, for user 1001, and one text. */
export const PREPARATION = [
  ...FLEET.filter(({ folders }) => folders.length > 0).map(({ name }) => `mkdir -p ${FILES_FOLDER}/${name}`),
  `echo 'one line' > ${FILES_FOLDER}/text-editor/note.txt`,
  `chown -R 1001:1001 ${FILES_FOLDER}`,
].join('\n')

interface Call {
  readonly name: string
  readonly arguments: Record<string, unknown>
  /** In the answer. */
  readonly says: RegExp
}

const SQL = 'SELECT 6 * 7 AS answer'

/** A harmless call of each service that can answer one without a network. */
export const CALLS: Readonly<Record<string, Call>> = {
  arxiv: { name: 'list_papers', arguments: {}, says: /papers/i },
  calculator: { name: 'calculate', arguments: { expression: '6*7' }, says: /42/ },
  duckdb: { name: 'execute_query', arguments: { sql: SQL }, says: /42/ },
  everything: { name: 'get-env', arguments: {}, says: /HOSTNAME/ },
  excel: { name: 'list_workbooks', arguments: { directory: '/data' }, says: /./ },
  filesystem: { name: 'list_allowed_directories', arguments: {}, says: /\/data/ },
  memory: { name: 'read_graph', arguments: {}, says: /entities/ },
  postgres: { name: 'execute_sql', arguments: { sql: SQL }, says: /42/ },
  powerpoint: { name: 'create_presentation', arguments: {}, says: /presentation/ },
  'sequential-thinking': {
    name: 'sequentialthinking',
    arguments: { thought: 'one', nextThoughtNeeded: false, thoughtNumber: 1, totalThoughts: 1 },
    says: /thoughtNumber/,
  },
  sqlite: { name: 'read_query', arguments: { query: SQL }, says: /42/ },
  'text-editor': {
    name: 'get_text_file_contents',
    arguments: { files: [{ file_path: '/data/note.txt', ranges: [{ start: 1 }] }] },
    says: /one line/,
  },
  time: { name: 'get_current_time', arguments: { timezone: 'UTC' }, says: /UTC/ },
  word: { name: 'list_available_documents', arguments: {}, says: /./ },
}

/** Speaks MCP until its tool is called, and then takes all memory that there is. */
export const HUNGRY = `
  const tools = [{name: 'eat', inputSchema: {type: 'object'}}]
  const serverInfo = {name: 'hungry', version: '1'}
  require('readline').createInterface({input: process.stdin}).on('line', (line) => {
    const {id, method, params} = JSON.parse(line)
    if (id === undefined) return
    const all = []
    while (method === 'tools/call') all.push(Buffer.alloc(1e6, 1))
    const result = method === 'initialize' ?
      {protocolVersion: params.protocolVersion, capabilities: {tools: {}}, serverInfo} : {tools}
    console.log(JSON.stringify({jsonrpc: '2.0', id, result}))
  })`
