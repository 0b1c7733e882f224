// A client on version 2 of the TypeScript SDK, which speaks both eras. In the modern one it asks the server what it
// speaks first, as its users will have it.

import { Client, LOG_LEVEL_META_KEY, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'

import { answerOf, questionOf, textOf } from './results.ts'
import { ANSWERS, Told, type Connect } from './steps.ts'

export const connectV2: Connect = async ({ url, client: name, era }, asked) => {
  const isModern = era === 'modern'
  const client = new Client(
    { name: 'berth-test', version: '1.0.0' },
    {
      capabilities: asked ? { sampling: {}, elicitation: {}, roots: {} } : {},
      versionNegotiation: { mode: isModern ? 'auto' : 'legacy' },
    },
  )
  const told = new Told()
  client.setNotificationHandler('notifications/message', ({ params }) => void told.logs.push(params.level))
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => void told.updated.push(params.uri))
  client.setNotificationHandler('notifications/tools/list_changed', () => void told.toolChanges++)
  if (asked) {
    client.setRequestHandler('sampling/createMessage', ({ params }) => {
      told.asked.push(questionOf(params.messages))
      return { model: 'test', role: 'assistant', content: { type: 'text', text: ANSWERS.model } }
    })
    client.setRequestHandler('elicitation/create', ({ params }) => {
      told.asked.push(params.message)
      return answerOf(params.message)
    })
    client.setRequestHandler('roots/list', () => ({ roots: ANSWERS.roots }))
  }
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { 'x-mcp-client': name } },
  })
  await client.connect(transport)
  // In the modern era the level goes with each request.
  let meta: Record<string, unknown> = {}
  return {
    revision: client.getNegotiatedProtocolVersion() ?? '',
    told,
    lists: async () => ({
      tools: (await client.listTools()).tools.map((tool) => tool.name),
      prompts: (await client.listPrompts()).prompts.map((prompt) => prompt.name),
      resources: (await client.listResources()).resources.map(({ uri }) => uri),
      templates: (await client.listResourceTemplates()).resourceTemplates.map(({ uriTemplate }) => uriTemplate),
    }),
    call: async (tool, args = {}, options) =>
      textOf(await client.callTool({ name: tool, arguments: args, _meta: meta }, options)),
    prompt: async (prompt, args) => textOf((await client.getPrompt({ name: prompt, arguments: args })).messages[0]!),
    read: async (uri) => textOf({ content: (await client.readResource({ uri })).contents }),
    wantLogs: async (level) => {
      if (isModern) meta = { [LOG_LEVEL_META_KEY]: level }
      else await client.setLoggingLevel(level)
    },
    subscribe: async (uri) => {
      if (isModern) {
        const subscription = await client.listen({ resourceSubscriptions: [uri] })
        return () => subscription.close()
      }
      await client.subscribeResource({ uri })
      return async () => void (await client.unsubscribeResource({ uri }))
    },
    watchTools: async () => {
      if (isModern) await client.listen({ toolsListChanged: true })
    },
    close: async () => {
      if (!isModern) await transport.terminateSession()
      await client.close()
    },
  }
}
