// What a client built on an official SDK has to see, whatever its language, its era and the server's: told once, and
// done by steps.ts and client.py. And what an SDK or an era does not have.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { LEVELS } from '../conformance/fixture/call.ts'
import { Catalogue, WATCHED } from '../conformance/fixture/catalogue.ts'

const catalogue = new Catalogue()
const from = (level: (typeof LEVELS)[number]) => LEVELS.slice(LEVELS.indexOf(level))

/** By name: what the client reports. */
export const SCENARIOS = {
  list: {
    tools: catalogue.tools().map(({ name }) => name),
    prompts: catalogue.prompts().map(({ name }) => name),
    resources: catalogue.resources().map(({ uri }) => uri),
    templates: catalogue.templates().map(({ uriTemplate }) => uriTemplate),
  },
  call: {
    text: 'This is a simple text response for testing.',
    // A failure of a tool is a result; the argument also goes in a header in the modern era, encoded.
    failure: 'This tool intentionally returns an error for testing',
    argument: 'Region: Zürich ✓',
    prompt: "Prompt with arguments: arg1='one', arg2='zwei ☂'",
    resource: 'This is the content of the static text resource.',
    unknownTool: -32602,
  },
  progress: { text: 'Came to the end.', progress: [0, 50, 100] },
  cancel: { text: null, server: 'cancelled' },
  sampling: { text: 'LLM response: Roses are red.', asked: ['A poem, please'] },
  elicitation: {
    accepted: 'User response: action=accept, content={"username":"ann","email":"ann@example.com"}',
    declined: 'User response: action=decline, content={}',
    // Two questions in one call.
    rounds: 'ann likes green.',
    asked: ['Who?', 'Really?', 'Step 1: What is your name?', 'Step 2: What is your favorite color?'],
  },
  roots: { text: 'Roots: [{"uri":"file:///one","name":"one"}]' },
  // One update while subscribed, and none of the change after that.
  subscriptions: { updated: [WATCHED], changed: true, toolChanges: 1 },
  'log level': { warning: from('warning'), debug: from('debug') },
  // The relay has cut its connections after the first step.
  resume: { text: 'Came to the end.', progress: [1, 2] },
} as const

export type Scenario = keyof typeof SCENARIOS
export const NAMES = Object.keys(SCENARIOS) as Scenario[]

export const REVISION = { legacy: '2025-11-25', modern: '2026-07-28' } as const
export type Era = keyof typeof REVISION
export const ERAS = ['legacy', 'modern'] as const

/** The SDKs, with the eras that they speak. */
export const CLIENTS = {
  'typescript-1': { sdk: `TypeScript ${versionOf('@modelcontextprotocol/sdk')}`, eras: ['legacy'] },
  'typescript-2': { sdk: `TypeScript ${versionOf('@modelcontextprotocol/client')}`, eras: ['legacy', 'modern'] },
  'python-1': { sdk: 'Python 1.30.0', eras: ['legacy'] },
  'python-2': { sdk: 'Python 2.3.0', eras: ['legacy', 'modern'] },
} as const satisfies Record<string, { sdk: string; eras: readonly Era[] }>
export type ClientName = keyof typeof CLIENTS

/** What a client cannot do before any server. It is tried all the same, and has to fail with these words. */
export interface Lack {
  readonly client: ClientName
  readonly era: Era
  readonly scenario: Scenario
  readonly why: string
  readonly says: RegExp
}

const NO_RESUMPTION = '2026-07-28 has no resumption: a request is lost with its stream'

export const LACKS: readonly Lack[] = [
  { client: 'typescript-2', era: 'modern', scenario: 'resume', why: NO_RESUMPTION, says: /Request timed out/ },
  { client: 'python-2', era: 'modern', scenario: 'resume', why: NO_RESUMPTION, says: /ended without a response/ },
]

function versionOf(name: string): string {
  const file = join(import.meta.dirname, '..', '..', 'node_modules', name, 'package.json')
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

/** What a client reports of a scenario: what it has seen, or why it came to no end. */
export type Report = { readonly seen: unknown } | { readonly failed: string }

/** The reports of one client before one server. */
export interface Outcome {
  readonly revision: string
  readonly reports: Readonly<Partial<Record<Scenario, Report>>>
}

/** Where a client calls. */
export interface Target {
  readonly url: string
  /** The client's name in Berth. */
  readonly client: string
  readonly era: Era
}
