// A client of the legacy era in a crowd: one session after another, with their streams.

import {
  events,
  idOf,
  isStream,
  pause,
  Person,
  send,
  textOf,
  type Act,
  type Call,
  type CallAct,
  type Sent,
} from './crowd.ts'

export class LegacyPerson extends Person {
  #session = ''
  #generation = 0
  #turn: Promise<void> = Promise.resolve()
  /** That it ends a session which may have calls under way. */
  readonly #ended = new Set<string>()
  readonly #uris = new Set<string>()
  #get: Sent | undefined

  protected override get place(): string {
    return `${this.name}:${this.#generation}`
  }

  override async open(): Promise<void> {
    this.#generation++
    this.#uris.clear()
    const params = {
      protocolVersion: '2025-11-25',
      capabilities: { sampling: {} },
      clientInfo: { name: 't', version: '1' },
    }
    const body = JSON.stringify({ jsonrpc: '2.0', id: 'init', method: 'initialize', params })
    for (let tries = 0; ; tries++) {
      const response = await send(this.world.socket, 'POST', { 'x-mcp-client': this.client }, body).response
      const text = response ? await textOf(response) : ''
      if (response?.statusCode === 200) {
        this.#session = String(response.headers['mcp-session-id'])
        break
      }
      if (this.world.notes.deaths === 0 || tries > 100) {
        this.fault(`no session: ${text}`)
        return
      }
      await pause(5)
    }
    await this.#post('{"jsonrpc":"2.0","method":"notifications/initialized"}')
    this.keepStream(this.#listen(this.#session, this.place))
  }

  protected override async act(act: Exclude<Act, CallAct>): Promise<void> {
    if (act.do === 'reopen') {
      await this.#inTurn(async () => {
        await this.close()
        await this.open()
      })
    } else if (act.do === 'stream') this.#get?.abort()
    else if (act.do === 'subscribe' || act.do === 'unsubscribe') {
      if (act.do === 'subscribe') this.#uris.add(act.uri)
      const body = {
        jsonrpc: '2.0',
        id: `${act.do} ${Math.random()}`,
        method: `resources/${act.do}`,
        params: { uri: act.uri },
      }
      await this.#post(JSON.stringify(body))
    }
  }

  protected override async call(call: Call): Promise<void> {
    const { act, tag, id, token } = call
    const session = this.#session
    const place = this.place
    const ended = () => this.#ended.has(session)
    const sent = this.#send('POST', session, this.body(call, token === undefined ? '' : `"progressToken":${token}`))
    const cancel = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}}}`
    const moment = this.moment(call, () => {
      if (act.manner === 'drop' || act.manner === 'leave') sent.abort()
      if (act.manner === 'cancel' && call.outcome === undefined) this.keep(this.#post(cancel, session))
    })
    let response = await sent.response
    const forgotten = response?.statusCode === 404
    let last: string | undefined
    while (response && isStream(response)) {
      for await (const { id: eventId, data } of events(response)) {
        last = eventId ?? last
        if (data === '') continue
        if (data.includes('"method":')) this.#hear(call, data, session, place)
        else this.settle(call, data, ended())
        moment.count()
      }
      if (act.manner !== 'drop' || last === undefined || call.outcome !== undefined) break
      response = await this.#send('GET', session, undefined, { 'last-event-id': last }).response
      if (response && !isStream(response)) {
        const text = await textOf(response)
        if (response.statusCode !== 404) this.fault(`${tag}: not resumed after ${last}: ${text}`)
        if (response.statusCode === 404) this.settle(call, 'The session has ended.', ended())
      }
    }
    if (response && !isStream(response)) {
      const text = await textOf(response)
      // A connection that was lost before an event came cannot be resumed.
      if (call.outcome === undefined && response.complete) this.settle(call, text, ended())
    }
    const lost = act.manner === 'leave' || (act.manner === 'drop' && last === undefined)
    if (call.outcome === undefined && !lost) this.settle(call, '', ended())
    moment.stop()
    // Nobody waits any more; the server may still work on it.
    call.outcome ??= 'lost'
    if (forgotten) await this.#reopen(session)
  }

  /** One opening after another, whoever wants it. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.then(work)
    return this.#turn
  }

  /** The server has forgotten the session. */
  #reopen(session: string): Promise<void> {
    return this.#inTurn(async () => {
      if (session !== this.#session) return
      this.#ended.add(session)
      await this.open()
    })
  }

  protected override ready(): Promise<void> {
    return this.#turn
  }

  protected override async close(): Promise<void> {
    const session = this.#session
    this.#ended.add(session)
    const response = await this.#send('DELETE', session).response
    if (response) await textOf(response)
  }

  /** The GET stream, over all its connections. */
  async #listen(session: string, place: string): Promise<void> {
    let last: string | undefined
    while (!this.#ended.has(session)) {
      const sent = this.#send('GET', session, undefined, last === undefined ? {} : { 'last-event-id': last })
      if (session === this.#session) this.#get = sent
      const response = await sent.response
      if (!response || !isStream(response)) {
        if (response) await textOf(response)
        // The process may have ended by itself.
        if (response?.statusCode === 404) return
        continue
      }
      for await (const { id, data } of events(response)) {
        last = id ?? last
        if (data !== '') this.#hear(undefined, data, session, place)
      }
    }
  }

  #hear(call: Call | undefined, data: string, session: string, place: string): void {
    const { world } = this
    const message = JSON.parse(data) as { method?: string; params?: { uri?: string; tag?: string } }
    if (message.method === undefined) return this.fault(`an answer outside of its call: ${data}`)
    if (message.method === 'notifications/resources/updated') {
      const mine = this.#uris.has(message.params!.uri!) || place !== this.place
      if (!mine) this.fault(`an update of ${message.params!.uri}, to which it has not subscribed`)
    } else if (message.method === 'sampling/createMessage') {
      const tag = message.params!.tag!
      if (world.era === 'modern' && call?.tag !== tag) this.fault(`${place} was asked for ${tag} on ${call?.tag}`)
      if (world.isolation === 'shared' && world.era === 'legacy')
        this.fault(`asked for ${tag} by a server that all share`)
      this.keep(this.#answer(idOf(data)!, call?.tag ?? `${place}.get`, session))
    } else {
      const isLog = message.method === 'notifications/message'
      if (isLog && world.isolation === 'shared' && world.era === 'legacy')
        this.fault('a log of a server that all share')
      this.see(place, call, data)
    }
  }

  /** Others try first where all share one process; that must have no effect. */
  async #answer(id: string, by: string, session: string): Promise<void> {
    const body = (who: string) => `{"jsonrpc":"2.0","id":${id},"result":{"by":"${who}"}}`
    if (this.world.isolation !== 'session' && this.world.era === 'legacy') {
      for (const other of this.world.people) {
        if (other !== this && other instanceof LegacyPerson) await other.#post(body('forged'))
      }
    }
    await this.#post(body(by), session)
  }

  #send(method: string, session: string, body?: string, headers: { [name: string]: string } = {}): Sent {
    const all = { 'x-mcp-client': this.client, 'mcp-session-id': session, ...headers }
    return send(this.world.socket, method, all, body)
  }

  /** Any POST may become a stream, on which the server asks something for another call. */
  async #post(body: string, session = this.#session): Promise<void> {
    const place = this.place
    const response = await this.#send('POST', session, body).response
    if (response && !isStream(response)) return void (await textOf(response))
    if (!response) return
    for await (const { data } of events(response)) {
      if (data.includes('"method":')) this.#hear(undefined, data, session, place)
    }
  }
}
