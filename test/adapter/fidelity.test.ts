// What clients and servers write reaches the other side as it was written, for every pair of eras, and what is odd about
// it harms nobody else.

import { afterEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { answersAdapter, KEY, VERSION } from './modern-support.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import {
  inProcess,
  openSession,
  post,
  stream,
  toolCall,
  toolText,
  until,
  type CallOptions,
  type Rpc,
} from './support.ts'

type Era = 'legacy' | 'modern'

const PAIRS: readonly (readonly [Era, Era])[] = [
  ['legacy', 'legacy'],
  ['legacy', 'modern'],
  ['modern', 'legacy'],
  ['modern', 'modern'],
]
/** A client whose tools may ask it, so that all that a bridge does for that is done. */
const CAPABILITIES = { elicitation: { form: {}, url: {} } }
const DEEP = 100_000
const deep = `${'[{"a":'.repeat(DEEP / 2)}1${'}]'.repeat(DEEP / 2)}`

let running: ScriptedSlot | undefined
afterEach(async () => {
  await running?.stop()
  running = undefined
})

interface Client {
  readonly socket: string
  readonly call: (id: string, args: string, more?: string) => { readonly body: string; readonly options: CallOptions }
}

/** A slot with a server of one era that leaves calls of tools to `called`, and a client of the other. */
async function start(
  [client, server]: readonly [Era, Era],
  called: (server: ScriptedServer, id: string, line: string) => void,
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
): Promise<Client> {
  const hear = (one: ScriptedServer, message: Rpc) => {
    if (message.method === 'tools/call') {
      const id = JSON.stringify(message.id)
      return called(
        one,
        id,
        one.lines.find((line) => line.includes(`"id":${id},`))!,
      )
    }
    if (server === 'modern' && answersAdapter(one, message)) return
    if (message.id !== undefined && message.method !== undefined) one.say({ id: message.id, result: { tools: [] } })
  }
  running = await scriptedSlot({ era: server, isolation: 'client', ...changes }, bounds, hear)
  const { socket } = running
  if (client === 'legacy') {
    const session = await openSession(socket, { capabilities: CAPABILITIES })
    const call = (id: string, args: string, more = '') => ({
      body: `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"x"${more},"arguments":${args}}}`,
      options: { session },
    })
    return { socket, call }
  }
  const meta = `{"${KEY.version}":"${VERSION}","${KEY.capabilities}":${JSON.stringify(CAPABILITIES)}}`
  const call = (id: string, args: string, more = '') => ({
    body: `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"x"${more},"arguments":${args},"_meta":${meta}}}`,
    options: { headers: { 'mcp-protocol-version': VERSION, 'mcp-method': 'tools/call', 'mcp-name': 'x' } },
  })
  return { socket, call }
}

const send = ({ socket, call }: Client, id: string, args: string, more = '') => {
  const { body, options } = call(id, args, more)
  return post(socket, body, options)
}
const wire = (text: string) => Buffer.from(text).toString('latin1')
const answered = (id: string, result: string) => `{"jsonrpc":"2.0","id":${id},"result":${result}}`

/** All that a parser and a serializer in between would change. */
const ODD = String.raw`{"z":1.0,"big":12345678901234567890123,"b":9007199254740993,"m":-0,"e":1E+2,"t":1e400, "a" :0.10,
 "2":1,"1":2,"s":"\u00e9é\/\u2028€😀\ud800","\u0064up":1,"dup":2,"":{"":null},"__proto__":{"x":1},"l":[ ]}`.replace(
  '€',
  '€\u2028\u2029\u0085',
)

describe.each(PAIRS)('a %s client before a %s server', (...pair) => {
  it('numbers, order, escapes, spaces and unknown members stay as they were written, both ways', async () => {
    let line = ''
    const client = await start(pair, (server, id, got) => {
      line = got
      server.say(
        answered(
          id,
          `{"resultType":"complete","structuredContent":${ODD.replace('\n', '\r')},"content":[],"x":${ODD.replace('\n', ' ')}}`,
        ),
      )
    })
    for (const id of ['1.0', '-7', '12345678901234567890', '""', String.raw`"\u0000\"é"`]) {
      const answer = await send(client, id, ODD, `,"unknown":${ODD}`)
      const oneLine = wire(ODD.replace('\n', ' '))
      expect(line).toContain(`"arguments":${oneLine}`)
      expect(line).toContain(`"unknown":${oneLine}`)
      expect(answer.text).toContain(`"id":${id},`)
      expect(answer.text).toContain(`"structuredContent":${ODD.replace('\n', '\r')},`)
      expect(answer.text).toContain(`"x":${ODD.replace('\n', ' ')}`)
    }
  })

  it('the same on a stream, whose lines CR, LF and U+2028 do not end', async () => {
    const client = await start(pair, (server, id, line) => {
      const token = /"progressToken":("[^"]*"|\d+)/.exec(line)![1]!
      const params = `{"progressToken":${token},"progress":1.0,\r"x":${ODD.replace('\n', '\r')}}`
      server.say(`{"jsonrpc":"2.0","method":"notifications/progress",\r"params":${params}}\r`)
      server.say(answered(id, `{"resultType":"complete","x":${ODD.replace('\n', '\r')}}`))
    })
    const { body, options } = client.call('"s"', '{}')
    const events = await (await stream(client.socket, 'POST', options, withToken(body, '"tök"'))).rest()
    expect(events).toHaveLength(2)
    expect(events[0]!.data).toContain(`"progressToken":"tök","progress":1.0, "x":${ODD.replace('\n', ' ')}`)
    expect(events[1]!.data).toContain(`"x":${ODD.replace('\n', ' ')}`)
  })

  it('what nests 100,000 deep passes, in arguments, results, errors and questions', async () => {
    let calls = 0
    const client = await start(pair, (server, id, line) => {
      expect(line).toContain(`"arguments":{"deep":${deep}}`)
      calls++
      if (calls === 1) server.say(answered(id, `{"resultType":"complete","deep":${deep}}`))
      else if (calls === 2) server.say(`{"jsonrpc":"2.0","id":${id},"error":{"code":-1,"message":"m","data":${deep}}}`)
      else if (calls === 3) {
        const elicitations = `[{"url":"https://example.com","message":"m","elicitationId":"e","x":1.0,"deep":${deep}}]`
        server.say(
          `{"jsonrpc":"2.0","id":${id},"error":{"code":-32042,"message":"m","data":{"elicitations":${elicitations}}}}`,
        )
      } else server.say(answered(id, '{"resultType":"complete"}'))
    })
    const args = `{"deep":${deep}}`
    for (const part of [`"deep":${deep}`, `"data":${deep}`]) {
      expect((await send(client, '1', args)).text).toContain(part)
    }
    // Passed on, or refused by who would have to keep the request in mind until its retry; never the end of the adapter.
    expect((await send(client, '3', args)).text).toMatch(/"deep":\[\{|nested deeper/)
    expect((await send(client, '4', args)).text).toContain('"id":4')
  })

  it('a message of the largest size passes both ways', async () => {
    const limit = 16_000_000
    const fill = 'é'.repeat(limit / 2 - 5000)
    const limits = { concurrency: 16, queue: 100, timeoutMs: 60_000, messageBytes: limit }
    const client = await start(
      pair,
      (server, id, line) =>
        server.say(
          answered(id, `{"resultType":"complete","x":"${/é+/.exec(Buffer.from(line, 'latin1').toString())![0]}"}`),
        ),
      { limits },
    )
    const answer = await send(client, '1', `{"x":"${fill}"}`)
    expect(answer.status).toBe(200)
    expect((JSON.parse(answer.text) as { result: { x: string } }).result.x === fill).toBe(true)
  }, 120_000)

  it('garbage between the messages of a server is skipped, and none of them is lost', async () => {
    const garbage = [
      Buffer.from('Listening on stdio\n\n\r\n[1,2\n{"jsonrpc":"2.0","id":\n{"jsonrpc":"2.0","id":"1","result":{}}\n'),
      Buffer.from([0xff, 0xfe, 0x00, 0x0a, 0xc3, 0x28, 0x0a, 0x0a]),
      Buffer.from('{"jsonrpc":"2.0","id":99999999,"result":{}}\n{"jsonrpc":"2.0","id":null,"error":{}}\n'),
      Buffer.from('{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":[]}}\n'),
      Buffer.from('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}\n'),
      Buffer.from(`{"jsonrpc":"2.0","method":"\\q","params":{"_meta":1}}\n${'{"id":'.repeat(5000)}\n`),
    ]
    const client = await start(pair, (server, id) => {
      for (const bytes of garbage) server.sayBytes(bytes)
      const message = Buffer.from(answered(id, '{"resultType":"complete","text":"é?"}'))
      message[message.indexOf('?')] = 0xff
      for (const byte of message) server.sayBytes(Buffer.from([byte]))
      server.sayBytes(Buffer.from('\n'))
    })
    for (const id of ['1', '"1"']) {
      const answer = await send(client, id, '{}')
      expect(JSON.parse(answer.text)).toMatchObject({ id: JSON.parse(id) as unknown, result: { text: 'é\ufffd' } })
    }
  })

  it('a flood to a reader that takes nothing is bounded, and others get their answers', async () => {
    const part = 'x'.repeat(100_000)
    const bounds = { slowStreamBytes: 300_000, streamBufferBytes: 100_000, replayBytes: 500_000 }
    const flooding = new Set<() => void>()
    const client = await start(
      pair,
      (server, id, line) => {
        if (!line.includes('"flood"')) return server.say(answered(id, '{"resultType":"complete"}'))
        const token = /"progressToken":("[^"]*"|\d+)/.exec(line)![1]!
        let sent = 0
        const more = () => {
          if (server.ended || server.paused || sent++ > 200) return
          const params = `{"progressToken":${token},"progress":${sent},"message":"${part}"}`
          server.say(`{"jsonrpc":"2.0","method":"notifications/progress","params":${params}}`)
        }
        flooding.add(more)
      },
      {},
      bounds,
    )
    const { body, options } = client.call('"flooded"', '{"flood":1}')
    const opening = stream(client.socket, 'POST', options, withToken(body, '"t"'))
    await until('the call is under way', () => flooding.size === 1)
    flooding.forEach((more) => more())
    const reader = await opening
    reader.response.pause()
    for (let i = 0; i < 60; i++) {
      flooding.forEach((more) => more())
      expect((await send(client, String(i), '{}')).text).toContain(`"id":${i}`)
    }
    await until('the reader is cut', () => running!.slot.status.streams === 0)
    expect(replayBytes(running!)).toBeLessThanOrEqual(500_000)
    reader.close()
  })
})

describe('a real process', () => {
  it('gets and gives messages of the largest size', async () => {
    const test = await inProcess()
    try {
      const session = await openSession(test.spec.httpSocket)
      const text = 'é'.repeat(7_990_000)
      const answer = await post(test.spec.httpSocket, toolCall('big', 'echo', { text }), { session })
      expect(toolText(answer) === text).toBe(true)
      expect(test.adapter.slot.status.requests).toBe(0)
    } finally {
      await test.stop()
    }
  })
})

function withToken(body: string, token: string): string {
  if (body.includes('"_meta":{')) return body.replace('"_meta":{', `"_meta":{"progressToken":${token},`)
  return body.replace('"name":"x"', `"name":"x","_meta":{"progressToken":${token}}`)
}

/** Of the events that are kept for all streams. */
function replayBytes({ slot }: ScriptedSlot): number {
  return (slot.exchanges as unknown as { replay: { bytes: number } }).replay.bytes
}
