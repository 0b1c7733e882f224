// The scenarios as a client in TypeScript does them. client.py does the same.

import { WATCHED } from '../conformance/fixture/catalogue.ts'
import { eventually } from '../e2e/berth.ts'
import { NAMES, type Outcome, type Report, type Scenario, type Target } from './scenarios.ts'

export interface CallOptions {
  readonly onprogress?: (progress: { readonly progress: number }) => void
  readonly signal?: AbortSignal
  /** ms; absent: the SDK's own, a minute */
  readonly timeout?: number
}

/** A connected client of any SDK, and what it was told. */
export interface Peer {
  readonly revision: string
  lists(): Promise<Record<'tools' | 'prompts' | 'resources' | 'templates', readonly string[]>>
  /** The texts of the result. */
  call(tool: string, args?: Record<string, unknown>, options?: CallOptions): Promise<string>
  prompt(name: string, args: Record<string, string>): Promise<string>
  read(uri: string): Promise<string>
  /** From now on logs of this level and above are wanted. */
  wantLogs(level: 'debug' | 'warning'): Promise<void>
  /** Subscribes to a resource; what is resolved with unsubscribes. */
  subscribe(uri: string): Promise<() => Promise<void>>
  /** From now on changes of the list of tools are told. */
  watchTools(): Promise<void>
  readonly told: Told
  /** Ends the session, too, where there is one. */
  close(): Promise<void>
}

/** What the server has told and asked, in order. */
export class Told {
  readonly logs: string[] = []
  readonly updated: string[] = []
  readonly asked: string[] = []
  toolChanges = 0
}

/** @param asked whether the client declares that it can be asked */
export type Connect = (target: Target, asked: boolean) => Promise<Peer>

type Step = (peer: Peer, target: Target) => Promise<unknown>

const LOST_MS = 3_000

const PLAIN = {
  list: (peer) => peer.lists(),
  call: async (peer) => ({
    text: await peer.call('test_simple_text'),
    failure: await peer.call('test_error_handling'),
    argument: await peer.call('test_header_parameter', { region: 'Zürich ✓' }),
    prompt: await peer.prompt('test_prompt_with_arguments', { arg1: 'one', arg2: 'zwei ☂' }),
    resource: await peer.read('test://static-text'),
    unknownTool: await peer.call('test_unknown').catch((error: { code?: number }) => error.code),
  }),
  progress: (peer) => withProgress(peer, 'test_tool_with_progress'),
  cancel: async (peer, { client, era, url }) => {
    const key = `${client} ${era} ${url}`
    const cancel = new AbortController()
    const text = await peer
      .call('test_wait_for_cancel', { key }, { signal: cancel.signal, onprogress: () => cancel.abort() })
      .catch(() => null)
    return { text, server: await peer.call('test_cancelled', { key }) }
  },
  subscriptions: async (peer) => {
    const { told } = peer
    const before = await peer.read(WATCHED)
    const unsubscribe = await peer.subscribe(WATCHED)
    await peer.watchTools()
    await peer.call('test_trigger_resource_change')
    await eventually(() => assert(told.updated.length > 0, 'no update'))
    const changed = (await peer.read(WATCHED)) !== before
    await unsubscribe()
    await peer.call('test_trigger_resource_change')
    // What is told later shows that nothing more comes of what was before it.
    await peer.call('test_trigger_tool_change')
    await eventually(() => assert(told.toolChanges > 0, 'no change of the list of tools'))
    const seen = { updated: [...told.updated], changed, toolChanges: told.toolChanges }
    await peer.call('test_trigger_tool_change')
    return seen
  },
  'log level': async (peer) => {
    const levels = async (level: 'debug' | 'warning'): Promise<string[]> => {
      peer.told.logs.length = 0
      await peer.wantLogs(level)
      await peer.call('test_log_levels')
      await eventually(() => assert(peer.told.logs.includes('emergency'), 'no log of the highest level'))
      return [...peer.told.logs]
    }
    return { warning: await levels('warning'), debug: await levels('debug') }
  },
  // The last one: it loses the connections. In the modern era the call is lost with them, which version 2 of the SDK
  // leaves to the call's timeout.
  resume: (peer, { era }) => withProgress(peer, 'test_resumable', era === 'modern' ? { timeout: LOST_MS } : {}),
} satisfies Partial<Record<Scenario, Step>>

/** A client that can be asked is another one to a legacy server, so these have a connection of their own. */
const ASKED = {
  sampling: async (peer) => ({
    text: await peer.call('test_sampling', { prompt: 'A poem, please' }),
    asked: peer.told.asked.splice(0),
  }),
  elicitation: async (peer) => ({
    accepted: await peer.call('test_elicitation', { message: 'Who?' }),
    declined: await peer.call('test_elicitation', { message: 'Really?' }),
    rounds: await peer.call('test_input_required_result_multi_round'),
    asked: peer.told.asked.splice(0),
  }),
  roots: async (peer) => ({ text: await peer.call('test_input_required_result_list_roots') }),
} satisfies Partial<Record<Scenario, Step>>

/** What the model, the user and the roots of every client answer. */
export const ANSWERS = {
  model: 'Roses are red.',
  roots: [{ uri: 'file:///one', name: 'one' }],
  /** Undefined: declined. By the message. */
  user: {
    'Who?': { username: 'ann', email: 'ann@example.com' },
    'Step 1: What is your name?': { name: 'ann' },
    'Step 2: What is your favorite color?': { color: 'green' },
  } as Readonly<Record<string, Record<string, string>>>,
}

async function withProgress(peer: Peer, tool: string, options: CallOptions = {}): Promise<unknown> {
  const progress: number[] = []
  const text = await peer.call(tool, {}, { ...options, onprogress: (step) => progress.push(step.progress) })
  return { text, progress }
}

function assert(condition: boolean, what: string): void {
  if (!condition) throw new Error(what)
}

export async function runSteps(connect: Connect, target: Target): Promise<Outcome> {
  const reports: Partial<Record<Scenario, Report>> = {}
  let revision = ''
  const connections: readonly (readonly [Partial<Record<Scenario, Step>>, asked: boolean])[] = [
    [PLAIN, false],
    [ASKED, true],
  ]
  for (const [steps, asked] of connections) {
    const peer = await connect(target, asked)
    ;({ revision } = peer)
    for (const name of NAMES) {
      const step = steps[name]
      if (!step) continue
      reports[name] = await step(peer, target).then(
        (seen) => ({ seen }),
        (error: unknown) => ({ failed: String(error) }),
      )
    }
    await peer.close()
  }
  return { revision, reports }
}
