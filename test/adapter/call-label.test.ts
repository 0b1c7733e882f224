// What responses tell Envoy of their requests: methods and tools by names of which there are only so many.

import { describe, expect, test } from 'vitest'

import { CallLabels } from '../../src/adapter/call-label.ts'
import { readMessage, type Message } from '../../src/adapter/message.ts'

function message(of: object | string): Message {
  const text = typeof of === 'string' ? of : JSON.stringify({ jsonrpc: '2.0', ...of })
  const read = readMessage(Buffer.from(text).toString('latin1'))
  if ('invalid' in read) throw new Error(read.invalid)
  return read
}

const call = (name: unknown, more: object = {}) =>
  message({ id: 1, method: 'tools/call', params: { name, arguments: {}, ...more } })
const method = (name: string) => `x-berth-method: ${name}\r\n`
const tool = (name: string) => `${method('tools/call')}x-berth-tool: ${name}\r\n`
const WORKED = '{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'

/** After a call of this tool has succeeded. */
function knowing(...names: string[]): CallLabels {
  const labels = new CallLabels()
  for (const name of names) labels.of([call(name)]).answered?.(WORKED)
  return labels
}

describe('a method', () => {
  test.for([
    [{ id: 1, method: 'tools/list' }, 'tools/list'],
    [{ id: 1, method: 'server/discover' }, 'server/discover'],
    [{ method: 'notifications/initialized' }, 'notifications/initialized'],
    [{ id: 1, method: 'x\r\nset-cookie: a' }, 'other'],
    [{ method: 'constructor' }, 'other'],
    [{ id: 1, result: {} }, 'response'],
  ])('%j is told as %s', ([of, told]) => {
    expect(new CallLabels().of([message(of as object)]).headers).toBe(method(told as string))
  })

  test('of a batch is that of all its messages, or `batch`', () => {
    const labels = knowing('echo')
    expect(labels.of([call('echo'), call('echo')]).headers).toBe(tool('echo'))
    expect(labels.of([call('echo'), call('other')]).headers).toBe(method('batch'))
    expect(labels.of([message({ id: 1, method: 'ping' }), message({ id: 2, method: 'ping' })]).headers).toBe(
      method('ping'),
    )
    expect(labels.of([call('new'), call('new')]).answered).toBeUndefined()
  })
})

describe('a tool', () => {
  test('is known by its name when a call of it has succeeded, from that answer on', () => {
    const labels = new CallLabels()
    const label = labels.of([call('echo')])
    expect(label.headers).toBe(tool('other'))
    label.answered?.(WORKED)
    expect(label.headers).toBe(tool('echo'))
    expect(labels.of([call('echo')]).headers).toBe(tool('echo'))
    expect(labels.of([call('Echo')]).headers).toBe(tool('other'))
  })

  test.for([
    '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Unknown tool"}}',
    '{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}',
    '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"result","data":{"result":{}}}}',
  ])('is not known by the answer %s', (answer) => {
    const labels = new CallLabels()
    labels.of([call('nothing')]).answered?.(answer)
    expect(labels.of([call('nothing')]).headers).toBe(tool('other'))
  })

  test('is known when it was listed, on whichever page', () => {
    const labels = new CallLabels()
    const list = message({ id: 1, method: 'tools/list' })
    const page = (...names: string[]) =>
      JSON.stringify({
        jsonrpc: '2.0',
        id: 1,
        result: { tools: names.map((name) => ({ name, inputSchema: { name: 7 } })) },
      })
    labels.of([list]).answered?.(page('a', 'b'))
    labels.of([list]).answered?.(page('c'))
    expect(['a', 'b', 'c', 'd'].map((name) => labels.of([call(name)]).headers)).toEqual([
      tool('a'),
      tool('b'),
      tool('c'),
      tool('other'),
    ])
    for (const broken of ['{}', '{"result":7}', '{"result":{"tools":[7,{"name":[]},{}]}}', '{"result":{"tools":['])
      expect(() => labels.of([list]).answered?.(broken)).not.toThrow()
  })

  test.for([
    ['files:read/all', 'files:read/all'],
    ['zwölf', 'zw%C3%B6lf'],
    ['a b\r\nset-cookie: x', 'a%20b%0D%0Aset-cookie:%20x'],
    ["it's (a) *", 'it%27s%20%28a%29%20%2A'],
    ['other', '%6Fther'],
    ['\uD800', '%EF%BF%BD'],
    ['__proto__', '__proto__'],
  ])('%j is told as %s', ([name, told]) => {
    expect(knowing(name!).of([call(name)]).headers).toBe(tool(told!))
  })

  test.for(['', 'x'.repeat(65), 7, ['echo'], undefined])('%j is told as another', (name) => {
    const labels = knowing(...(typeof name === 'string' ? [name] : []))
    expect(labels.of([call(name)]).headers).toBe(tool('other'))
  })

  test('that is named twice is the one that the server reads, whichever way it is written', () => {
    const labels = knowing('echo', 'other-tool')
    const twice = message(
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"name":"other-tool"}}',
    )
    expect(labels.of([twice]).headers).toBe(tool('other-tool'))
    expect(labels.of([call('echo', { arguments: { name: 'x' } })]).headers).toBe(tool('echo'))
  })

  test('no more than 256 are known, whatever is called', () => {
    const labels = knowing(...Array.from({ length: 300 }, (_, i) => `t${i}`))
    expect(labels.of([call('t255')]).headers).toBe(tool('t255'))
    expect(labels.of([call('t256')]).headers).toBe(tool('other'))
  })
})
