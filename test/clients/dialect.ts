// What the three model APIs have in common, as far as a client needs it to call one tool and to end.

export type Json = Readonly<Record<string, unknown>>

/** A tool as a client shows it to the model. Codex groups the tools of a server in a namespace. */
export interface OfferedTool {
  readonly name: string
  readonly namespace?: string
}

/** What a request to the model says. */
export interface Turn {
  readonly offered: readonly OfferedTool[]
  /** What the tools that were called have answered, as text, in the order of the calls. */
  readonly results: readonly string[]
}

export interface Reply {
  readonly type: 'text/event-stream' | 'application/json'
  readonly body: string
}

/** One model API: how a request is read, and how a call of a tool and a last text are written. */
export interface Dialect {
  /** True for the path of a request that wants the model to go on. */
  asks(path: string): boolean
  turn(body: Json): Turn
  call(tool: OfferedTool, args: Json, path: string, body: Json): Reply
  say(text: string, path: string, body: Json): Reply
}

/** Server-sent events; `named` also gives each the name in its `type`. */
export function events(messages: readonly Json[], named: boolean): Reply {
  const lines = messages.map(
    (message) => `${named ? `event: ${String(message['type'])}\n` : ''}data: ${JSON.stringify(message)}\n\n`,
  )
  return { type: 'text/event-stream', body: lines.join('') }
}

export function json(message: Json): Reply {
  return { type: 'application/json', body: JSON.stringify(message) }
}

/** The objects in a list that may be no list. */
export function objects(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter((one): one is Json => typeof one === 'object' && one !== null) : []
}

/** A text, or the texts of content blocks, or else whatever it is as JSON. */
export function textOf(content: unknown): string {
  if (typeof content === 'string') return content
  const texts = objects(content).flatMap(({ text }) => (typeof text === 'string' ? [text] : []))
  return texts.length > 0 ? texts.join('\n') : JSON.stringify(content ?? null)
}
