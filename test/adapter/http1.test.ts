import { createServer, METHODS } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'

import fc from 'fast-check'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'

import { BodyReader } from '../../src/adapter/http1-body.ts'
import { readHead } from '../../src/adapter/http1-head.ts'
import { HttpServer, type HttpOptions, type HttpRequest, type HttpResponse } from '../../src/adapter/http1.ts'
import { tempFolder, until } from './support.ts'

describe('a head', () => {
  it('gives its parts', () => {
    const text = 'POST /mcp?x=1 HTTP/1.1\r\nHost: a\r\nX-Thing:\t é b \t\r\nempty:\r\nx-thing: c\r\nContent-Length: 12'
    expect(readHead(text)).toEqual({
      method: 'POST',
      target: '/mcp?x=1',
      headers: { host: 'a', 'x-thing': 'é b, c', empty: '', 'content-length': '12' },
      bodyBytes: 12,
      last: false,
    })
    expect(readHead('GET / HTTP/1.1')).toMatchObject({ method: 'GET', bodyBytes: 0 })
    expect(readHead('GET / HTTP/1.1\r\nConnection: keep-alive, Close')).toMatchObject({ last: true })
    expect(readHead('GET / HTTP/1.1\r\nconnection: not-close')).toMatchObject({ last: false })
    expect(readHead('GET / HTTP/1.1\r\nTransfer-Encoding: Chunked')).toMatchObject({ bodyBytes: undefined })
  })

  it('may have any name, also those that objects have', () => {
    expect(readHead('GET / HTTP/1.1\r\n__proto__: x\r\nconstructor: y')).toMatchObject({
      headers: { ['__proto__']: 'x', constructor: 'y' },
    })
  })

  it.each([
    'GET / HTTP/1.0',
    'GET / HTTP/2.0',
    'get / HTTP/1.1',
    'GET  / HTTP/1.1',
    'GET /a b HTTP/1.1',
    'GET / HTTP/1.1 ',
    'GET /\n HTTP/1.1',
    '',
    'GET / HTTP/1.1\r\nhost',
    'GET / HTTP/1.1\r\n: x',
    'GET / HTTP/1.1\r\nhost : x',
    'GET / HTTP/1.1\r\n host: x',
    'GET / HTTP/1.1\r\nhost: x\r\n folded',
    'GET / HTTP/1.1\r\nhost: x\ny: z',
    'GET / HTTP/1.1\r\nhost: x\ry: z',
    'GET / HTTP/1.1\r\nhost: a\0b',
    'GET / HTTP/1.1\r\nhost: x\r',
    'GET / HTTP/1.1\r\nho\u00e9st: x',
    'GET / HTTP/1.1\r\n\r\nhost: x',
    'POST / HTTP/1.1\r\ncontent-length: -1',
    'POST / HTTP/1.1\r\ncontent-length: +1',
    'POST / HTTP/1.1\r\ncontent-length: 1, 1',
    'POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1',
    'POST / HTTP/1.1\r\ncontent-length: 0x1',
    'POST / HTTP/1.1\r\ncontent-length:',
    'POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked',
    'POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked',
    'POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked',
    'POST / HTTP/1.1\r\ntransfer-encoding: identity',
  ])('%j is refused', (text) => {
    expect(readHead(text)).toEqual({ invalid: expect.any(String) })
  })
})

describe('a body', () => {
  const read = (bytes: Buffer, cuts: readonly number[], length?: number) => {
    const reader = new BodyReader(length)
    const parts: Buffer[] = []
    let from = 0
    let behind = 0
    for (const cut of [...cuts, bytes.length].toSorted((a, b) => a - b)) {
      const piece = bytes.subarray(from, cut)
      behind = from + reader.push(piece, 0, (part) => parts.push(Buffer.from(part)))
      from = cut
      if (reader.done || reader.broken) break
    }
    return { reader, body: Buffer.concat(parts), behind }
  }
  const chunked = (parts: readonly Uint8Array[], extension: string, trailers: readonly string[]): Buffer =>
    Buffer.concat([
      ...parts.flatMap((part) => [
        Buffer.from(`${part.length.toString(16)}${extension}\r\n`),
        part,
        Buffer.from('\r\n'),
      ]),
      Buffer.from(`0\r\n${trailers.map((trailer) => `${trailer}\r\n`).join('')}\r\n`),
    ])

  it('in chunks is the same however its bytes arrive, and ends where it ends', () => {
    const cases = fc.tuple(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 5 }),
      fc.constantFrom('', ';a=b', ';x;y=z'),
      fc.array(fc.constantFrom('a: b', 'content-lengthy: 3'), { maxLength: 2 }),
      fc.array(fc.nat(2000)),
    )
    fc.assert(
      fc.property(cases, ([parts, extension, trailers, cuts]) => {
        const bytes = chunked(parts, extension, trailers)
        const { reader, body, behind } = read(
          Buffer.concat([bytes, Buffer.from('GET')]),
          cuts.filter((cut) => cut < bytes.length),
        )
        expect([reader.done, reader.broken, behind]).toEqual([true, false, bytes.length])
        expect(body.equals(Buffer.concat(parts))).toBe(true)
      }),
    )
  })

  it('of so many bytes ends behind them', () => {
    const { reader, body, behind } = read(Buffer.from('abcdefGET'), [2, 4], 6)
    expect([reader.done, String(body), behind]).toEqual([true, 'abcdef', 6])
  })

  it.each([
    ['no length', 'x\r\n'],
    ['an empty length', '\r\n'],
    ['a negative length', '-1\r\n'],
    ['a length with LF alone', '1\nab\r\n'],
    ['a chunk that is longer', '1\r\nab\r\n'],
    ['a chunk with LF alone', '1\r\na\n'],
    ['an odd extension', '1;\x01\r\na\r\n'],
    ['a length beyond all', '1000000000000\r\n'],
    ['a long extension', `1;${'x'.repeat(2000)}`],
    ['a trailer that is none', '0\r\nGET / HTTP/1.1\r\n'],
    ['a length behind it', '0\r\nContent-Length: 2\r\n'],
    ['a coding behind it', '0\r\ntransfer-encoding: chunked\r\n'],
    ['many trailers', `0\r\n${'a: b\r\n'.repeat(3000)}`],
  ])('with %s is broken', (_name, text) => {
    const { reader } = read(Buffer.from(text), [])
    expect([reader.done, reader.broken]).toEqual([false, true])
  })
})

describe('a server', () => {
  const folder = tempFolder()
  let server: HttpServer
  let path = ''
  let sockets: Socket[] = []
  let number = 0
  let seen: HttpRequest[] = []
  let answers: HttpResponse[] = []
  /** What a request gets. */
  let serve: (req: HttpRequest, res: HttpResponse) => void

  const echo = (req: HttpRequest, res: HttpResponse) => {
    let body = ''
    req.read({
      part: (bytes) => void (body += bytes.toString('latin1')),
      end: () => res.send(200, { 'x-target': req.target }, body),
      lost: () => undefined,
    })
  }

  const start = async (options: Partial<HttpOptions> = {}) => {
    server = new HttpServer({
      slowReaderMs: 60_000,
      arrivalMs: 60_000,
      request: (req, res) => {
        seen.push(req)
        answers.push(res)
        serve(req, res)
      },
      refusal: (message) => JSON.stringify({ message }),
      ...options,
    })
    path = join(folder.path, String(number++))
    await new Promise<void>((settle) => void server.net.listen(path, settle))
  }

  afterAll(() => folder.remove())
  beforeEach(async () => {
    seen = []
    answers = []
    sockets = []
    serve = echo
    await start()
  })
  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    await server.close(0)
  })

  /** Sends bytes as they are; `text` is all that has come back. */
  const open = () => {
    const socket = connect(path)
    sockets.push(socket)
    const state = { text: '', ended: false, socket, send: (text: string) => void socket.write(text, 'latin1') }
    socket.on('error', () => undefined)
    socket.on('data', (bytes) => void (state.text += bytes.toString('latin1')))
    socket.on('close', () => void (state.ended = true))
    return state
  }
  const bodies = (text: string) => text.split(/HTTP\/1\.1 \d+ [^]*?\r\n\r\n/).slice(1)
  const post = (body: string, more = '') => `POST /mcp HTTP/1.1\r\n${more}content-length: ${body.length}\r\n\r\n${body}`

  it('answers requests that come at once one after the other, in their order', async () => {
    const held: (() => void)[] = []
    serve = (req, res) => {
      if (req.target === '/hold') held.push(() => res.send(200, {}, 'held'))
      else echo(req, res)
    }
    const client = open()
    client.send(`GET /hold HTTP/1.1\r\n\r\n${post('one')}\r\n${post('two')}GET /last HTTP/1.1\r\nx: y\r\n`)
    await until('the first is there', () => held.length === 1)
    client.send('\r\n')
    expect(seen).toHaveLength(1)
    held[0]!()
    await until('all are answered', () => bodies(client.text).length === 4)
    expect(bodies(client.text)).toEqual(['held', 'one', 'two', ''])
    expect(seen.map(({ target }) => target)).toEqual(['/hold', '/mcp', '/mcp', '/last'])
  })

  it('reads requests that arrive byte by byte', async () => {
    const client = open()
    client.socket.setNoDelay(true)
    const text = `${post('hello')}POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nt: u\r\n\r\n`
    for (const character of text) {
      client.send(character)
      await new Promise((settle) => setImmediate(settle))
    }
    await until('both are answered', () => bodies(client.text).length === 2)
    expect(bodies(client.text)).toEqual(['hello', 'abcde'])
  })

  it('throws away a body that nobody reads, and serves the next request', async () => {
    serve = (req, res) => (req.target === '/no' ? res.send(413, {}, 'no') : echo(req, res))
    const client = open()
    client.send('POST /no HTTP/1.1\r\ncontent-length: 200000\r\n\r\n')
    await until('it is refused', () => client.text.endsWith('no'))
    client.send(`${'x'.repeat(200_000)}${post('next')}`)
    await until('the next is answered', () => bodies(client.text).length === 2)
    expect(bodies(client.text)).toEqual(['no', 'next'])
  })

  it('begins no request behind the last one of a connection, though its body comes after the answer', async () => {
    serve = (req, res) => (req.target === '/no' ? res.send(413, {}, 'no') : echo(req, res))
    const client = open()
    client.send(`POST /no HTTP/1.1\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody${post('next')}`)
    await until('it is ended', () => client.ended)
    expect(seen.map(({ target }) => target)).toEqual(['/no'])
    expect(bodies(client.text)).toEqual(['no'])
  })

  it('takes the rest of a refused body on the last request, too: who sends it would not see the answer', async () => {
    serve = (_req, res) => res.send(413, {}, 'no')
    const client = open()
    const errors: unknown[] = []
    client.socket.on('error', (error) => errors.push(error))
    client.send(`POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 5000000\r\n\r\n${'x'.repeat(5_000_000)}`)
    await until('it is ended', () => client.ended)
    expect(errors).toEqual([])
    expect(bodies(client.text)).toEqual(['no'])
  })

  it('ends a connection whose answered request has still to arrive when it does', async () => {
    serve = (_req, res) => res.send(413, {}, 'no')
    const client = open()
    client.send('POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n')
    await until('it is refused', () => client.text.endsWith('no'))
    const closed = server.close(60_000)
    client.send('body')
    await until('it is ended', () => client.ended)
    await closed
  })

  it('does not cut the next request for an answer that has left', async () => {
    const client = open()
    client.send(post('one'))
    await until('the first is answered', () => answers[0]?.closed === true)
    serve = (_req, res) => {
      answers[0]!.destroy()
      res.send(200, {}, 'two')
    }
    client.send(post('x'))
    await until('the second is answered', () => client.ended || client.text.endsWith('two'))
    expect(bodies(client.text)).toEqual(['one', 'two'])
  })

  it.each([
    ['headers without end', `GET / HTTP/1.1\r\nx: ${'y'.repeat(70_000)}`, 431],
    ['large headers', `GET / HTTP/1.1\r\nx: ${'y'.repeat(70_000)}\r\n\r\n`, 431],
    ['no HTTP', 'hello\r\n\r\n', 400],
    ['another version', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['broken chunks', 'POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n', 400],
  ])('refuses %s once and ends the connection', async (_name, text, status) => {
    const client = open()
    client.send(text + text)
    await until('it is ended', () => client.ended)
    expect(client.text).toMatch(
      new RegExp(`^HTTP/1\\.1 ${status} [^]*connection: close\\r\\n\\r\\n\\{"message":"[^"]*"\\}$`),
    )
  })

  it('tells a client that asks first to go on', async () => {
    const client = open()
    client.send('POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n')
    await until('it may go on', () => client.text === 'HTTP/1.1 100 Continue\r\n\r\n')
    client.send('ok')
    await until('it is answered', () => client.text.endsWith('ok'))
  })

  it('sends no body where none belongs', async () => {
    serve = (req, res) => res.send(req.target === '/none' ? 204 : 200, {}, 'body')
    const client = open()
    client.send('HEAD / HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nconnection: close\r\n\r\n')
    await until('it is ended', () => client.ended)
    const [head, none, last] = client.text.split(/(?=HTTP)/)
    expect(head).toBe('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n')
    expect(none).toMatch(/^HTTP\/1\.1 204 No Content\r\n(?!content-length)/)
    expect(last).toBe('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody')
  })

  it('streams, writes nothing behind the end, and is free afterwards', async () => {
    serve = (req, res) => {
      if (req.target !== '/stream') return echo(req, res)
      res.stream({ 'content-type': 'text/event-stream' })
      res.send(500, {}, 'too late')
      res.write('one')
      res.write('')
      res.write('two')
      res.end()
      res.write('three')
      res.end()
    }
    const client = open()
    client.send(`GET /stream HTTP/1.1\r\n\r\n${post('next')}`)
    await until('both are answered', () => client.text.endsWith('next'))
    expect(bodies(client.text)[0]).toBe('3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n')
    expect(answers.map(({ closed, destroyed }) => [closed, destroyed])).toEqual([
      [true, false],
      [true, false],
    ])
  })

  it('tells when a client leaves: the reader of its body, the answer, and who waits for it to read', async () => {
    const told: string[] = []
    serve = (req, res) => {
      req.read({ part: () => told.push('part'), end: () => told.push('end'), lost: () => told.push('lost') })
      res.onClose(() => told.push('closed'))
      if (req.target !== '/stream') return
      res.stream({})
      res.write('x'.repeat(10_000_000))
      res.onDrain(() => told.push('drained'))
    }
    const early = open()
    early.send('POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx')
    await until('it has begun', () => told.length === 1)
    early.socket.end()
    await until('it is told', () => told.length === 3)
    expect(told.splice(0)).toEqual(['part', 'lost', 'closed'])
    expect([answers[0]!.destroyed, answers[0]!.closed]).toEqual([true, true])

    const slow = open()
    slow.socket.pause()
    slow.send('GET /stream HTTP/1.1\r\n\r\n')
    await until('it has begun', () => told.length === 1)
    expect(answers[1]!.writableLength).toBeGreaterThan(1_000_000)
    slow.socket.destroy()
    await until('it is told', () => told.length === 3)
    expect(told).toContain('drained')
    expect(told).toContain('closed')
    expect(server.connections.size).toBe(0)
  })

  it('tells when a slow reader has read', async () => {
    let drained = false
    let closed = false
    serve = (_req, res) => {
      res.stream({})
      res.write('x'.repeat(1_000_000))
      res.onDrain(() => (drained = true))
      res.onClose(() => (closed = true))
      res.end()
    }
    const client = open()
    client.socket.pause()
    client.send('GET / HTTP/1.1\r\n\r\n')
    await until('it has begun', () => answers.length === 1)
    expect([drained, closed]).toEqual([false, false])
    client.socket.resume()
    await until('it is told', () => drained && closed)
    expect(answers[0]!.destroyed).toBe(false)
    await until('all is there', () => client.text.endsWith('0\r\n\r\n'))
  })

  it('cuts a request that takes too long to arrive, and no other', async () => {
    await server.close(0)
    await start({ arrivalMs: 1000 })
    serve = (req, res) => {
      if (req.target !== '/wait') echo(req, res)
    }
    const texts = ['GET / HT', 'POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx', 'GET /wait HTTP/1.1\r\n\r\n', post('x')]
    const clients = texts.map((text) => {
      const client = open()
      client.send(text)
      return client
    })
    await until('all have arrived', () => seen.length === 3 && server.connections.size === 4)
    await until('the first has begun', () => {
      for (const connection of server.connections) connection.look(Date.now() + 2000)
      return clients[0]!.ended && clients[1]!.ended
    })
    expect(clients.map(({ ended }) => ended)).toEqual([true, true, false, false])
  })

  it('ends: idle connections at once, others with their answer, what nobody takes after a while', async () => {
    const held: HttpResponse[] = []
    serve = (_req, res) => void held.push(res)
    const [idle, busy, stuck] = [open(), open(), open()]
    busy.send('GET / HTTP/1.1\r\n\r\n')
    await until('it is busy', () => held.length === 1)
    stuck.send('GET / HTTP/1.1\r\n\r\n')
    await until('both are', () => held.length === 2 && server.connections.size === 3)
    const closed = server.close(200)
    await until('the idle one is ended', () => idle.ended)
    held[0]!.send(200, {}, 'done')
    await until('the busy one is ended', () => busy.ended)
    expect(busy.text).toBe('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone')
    await closed
    await until('the other is cut', () => held[1]!.destroyed)
  })

  describe('beside the one of Node', () => {
    /** What each server has read since the last look: method, target, the body as far as it came. */
    const read: Record<'ours' | 'theirs', string[][]> = { ours: [], theirs: [] }
    const node = createServer({ requireHostHeader: false }, (req) => {
      const request = [req.method!, req.url!, '']
      read.theirs.push(request)
      req.on('error', () => undefined)
      req.on('data', (bytes: Buffer) => void (request[2]! += bytes.toString('latin1')))
    })
    let nodePath = ''

    beforeEach(async () => {
      nodePath = join(folder.path, `node-${number++}`)
      await new Promise<void>((settle) => void node.listen(nodePath, settle))
      serve = (req, res) => {
        const request = [req.method, req.target, '']
        read.ours.push(request)
        req.read({
          part: (bytes) => void (request[2]! += bytes.toString('latin1')),
          end: () => res.send(200, {}, ''),
          lost: () => undefined,
        })
      }
    })
    afterEach(async () => {
      node.closeAllConnections()
      await new Promise((settle) => node.close(settle))
    })

    /** Sends bytes, and leaves when nothing comes any more. */
    const send = (at: string, bytes: Uint8Array) =>
      new Promise<void>((settle) => {
        const socket = connect(at)
        let quiet: NodeJS.Immediate | undefined
        const look = (turns: number) => {
          clearImmediate(quiet)
          if (turns === 0) socket.destroy()
          else quiet = setImmediate(look, turns - 1)
        }
        socket.on('error', () => undefined)
        socket.on('data', () => look(20))
        socket.on('close', () => {
          clearImmediate(quiet)
          settle()
        })
        socket.write(bytes, () => look(20))
      })

    const good = fc.constantFrom(
      'GET /mcp HTTP/1.1\r\nhost: a\r\n\r\n',
      'POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello',
      'POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
      'DELETE /mcp HTTP/1.1\r\nhost:a\r\nmcp-session-id: \t x \r\n\r\n',
    )
    const pieces = ['', ' ', '\r', '\n', '\r\n', ':', ';', '0', '5', 'x', '\0', '\u00e9', ',', 'content-length: 2\r\n']
    const edit = fc.record({ at: fc.nat(200), remove: fc.nat(3), insert: fc.constantFrom(...pieces) })

    it('reads no request that Node reads in another way', { timeout: 120_000 }, async () => {
      const cases = fc.tuple(fc.array(good, { minLength: 1, maxLength: 3 }), fc.array(edit, { maxLength: 3 }))
      await fc.assert(
        fc.asyncProperty(cases, async ([requests, edits]) => {
          let text = requests.join('')
          for (const { at, remove, insert } of edits) {
            const from = at % (text.length + 1)
            text = text.slice(0, from) + insert + text.slice(from + remove)
          }
          read.ours = []
          read.theirs = []
          const bytes = Buffer.from(text, 'latin1')
          await Promise.all([send(path, bytes), send(nodePath, bytes)])
          // Ours may refuse more, but for methods, which the adapter looks at.
          const unknown = read.ours.findIndex(([method]) => !METHODS.includes(method!))
          const ours = unknown < 0 ? read.ours : read.ours.slice(0, unknown)
          expect(read.theirs.slice(0, ours.length)).toEqual(ours)
          if (edits.length === 0) expect(ours).toHaveLength(requests.length)
        }),
        { numRuns: 1000 },
      )
    })

    it('survives bytes that mean nothing, and holds nothing of them', { timeout: 120_000 }, async () => {
      read.ours = []
      const bytes = fc.uint8Array({ minLength: 1, maxLength: 2000 })
      await fc.assert(
        fc.asyncProperty(bytes, (some) => send(path, some)),
        { numRuns: 100 },
      )
      expect(read.ours).toEqual([])
      await until('all connections are gone', () => server.connections.size === 0)
      await send(path, Buffer.from(post('still here')))
      expect(read.ours).toEqual([['POST', '/mcp', 'still here']])
    })
  })
})
