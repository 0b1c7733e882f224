// A client of the modern era in a crowd: requests on their own, and subscriptions.

import { events, isStream, Person, send, textOf, type Act, type Call, type CallAct, type Sent } from './crowd.ts'
import { KEY, VERSION } from './modern-support.ts'

export class ModernPerson extends Person {
  readonly #listens = new Set<Sent>()

  protected override get place(): string {
    return `${this.name}:1`
  }

  override open(): Promise<void> {
    return Promise.resolve()
  }

  protected override ready(): Promise<void> {
    return Promise.resolve()
  }

  protected override async act(act: Exclude<Act, CallAct>): Promise<void> {
    if (act.do === 'subscribe') this.keepStream(this.#listen(act.uri))
    else for (const listen of this.#listens) listen.abort()
    await Promise.resolve()
  }

  protected override async call(call: Call): Promise<void> {
    const { act, tag, token } = call
    let sent: Sent | undefined
    const moment = this.moment(call, () => {
      if (act.manner !== 'wait') sent?.abort()
    })
    const left = () => act.manner !== 'wait' && moment.reached
    const meta = [
      ...(token === undefined ? [] : [`"progressToken":${token}`]),
      ...(act.logs ? [`"${KEY.logLevel}":"debug"`] : []),
    ].join(',')
    let more = ''
    while (call.outcome === undefined && !left()) {
      const body = this.body(call, [own(), ...(meta === '' ? [] : [meta])].join(',')).replace(
        '"params":{',
        `"params":{${more}`,
      )
      sent = this.#send('tools/call', body)
      const response = await sent.response
      if (!response) break
      let answer = ''
      if (isStream(response)) {
        for await (const { data } of events(response)) {
          if (data.includes('"method":"notifications/')) this.see(this.place, call, data)
          else answer = data
          moment.count()
        }
      } else answer = await textOf(response)
      if (left() || (answer === '' && !response.complete)) break
      if (!answer.includes('"resultType":"input_required"')) {
        this.settle(call, answer)
        break
      }
      const { result } = JSON.parse(answer) as {
        result: { requestState: string; inputRequests: { [key: string]: { params: { tag: string } } } }
      }
      for (const { params } of Object.values(result.inputRequests)) {
        if (params.tag !== tag) this.fault(`${tag} was asked what ${params.tag} needs`)
      }
      const keys = Object.keys(result.inputRequests)
      const answers = Object.fromEntries(keys.map((key) => [key, { by: tag }]))
      more = `"inputResponses":${JSON.stringify(answers)},"requestState":${JSON.stringify(result.requestState)},`
    }
    if (call.outcome === undefined && !left()) this.settle(call, '')
    moment.stop()
    call.outcome ??= 'left'
  }

  protected override async close(): Promise<void> {
    for (const listen of this.#listens) listen.abort()
    await Promise.resolve()
  }

  async #listen(uri: string): Promise<void> {
    const id = `"listen ${this.name} ${uri}"`
    const filter = JSON.stringify({ toolsListChanged: true, resourceSubscriptions: [uri] })
    const params = `{"_meta":{${own()}},"notifications":${filter}}`
    const sent = this.#send(
      'subscriptions/listen',
      `{"jsonrpc":"2.0","id":${id},"method":"subscriptions/listen","params":${params}}`,
    )
    this.#listens.add(sent)
    const end = setTimeout(() => sent.abort(), 200)
    const response = await sent.response
    if (response && isStream(response)) {
      for await (const { data } of events(response)) {
        if (!data.includes(id)) this.fault(`a message of another subscription: ${data}`)
        const { method, params: told } = JSON.parse(data) as { method?: string; params?: { uri?: string } }
        if (method === 'notifications/resources/updated' && told?.uri !== uri) this.fault(`an update of ${told?.uri}`)
        if (method === 'notifications/message' || method === 'notifications/progress') this.fault(`heard ${data}`)
      }
    } else if (response) await textOf(response)
    clearTimeout(end)
    this.#listens.delete(sent)
  }

  #send(method: string, body: string): Sent {
    const headers = { 'x-mcp-client': this.client, 'mcp-protocol-version': VERSION, 'mcp-method': method }
    return send(this.world.socket, 'POST', method === 'tools/call' ? { ...headers, 'mcp-name': 'work' } : headers, body)
  }
}

/** What every request of the modern era says of its client. */
function own(): string {
  return `"${KEY.version}":"${VERSION}","${KEY.capabilities}":{"sampling":{}}`
}
