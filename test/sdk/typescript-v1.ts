// A client on version 1 of the TypeScript SDK, which speaks the legacy era.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js'

import { ANSWERS, Told, type Connect } from './steps.ts'
import { answerOf, questionOf, textOf } from './results.ts'

export const connectV1: Connect = async ({ url, client: name }, asked) => {
  const capabilities = asked ? { sampling: {}, elicitation: {}, roots: {} } : {}
  const client = new Client({ name: 'berth-test', version: '1.0.0' }, { capabilities })
  const told = new Told()
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void told.logs.push(params.level))
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => void told.updated.push(params.uri))
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => void told.toolChanges++)
  if (asked) {
    client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => {
      told.asked.push(questionOf(params.messages))
      return { model: 'test', role: 'assistant', content: { type: 'text', text: ANSWERS.model } }
    })
    client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
      told.asked.push(params.message)
      return answerOf(params.message)
    })
    client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: ANSWERS.roots }))
  }
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { 'x-mcp-client': name } },
  })
  await client.connect(transport)
  return {
    revision: transport.protocolVersion ?? '',
    told,
    lists: async () => ({
      tools: (await client.listTools()).tools.map((tool) => tool.name),
      prompts: (await client.listPrompts()).prompts.map((prompt) => prompt.name),
      resources: (await client.listResources()).resources.map(({ uri }) => uri),
      templates: (await client.listResourceTemplates()).resourceTemplates.map(({ uriTemplate }) => uriTemplate),
    }),
    call: async (tool, args = {}, options) =>
      textOf(await client.callTool({ name: tool, arguments: args }, undefined, options)),
    prompt: async (prompt, args) => textOf((await client.getPrompt({ name: prompt, arguments: args })).messages[0]!),
    read: async (uri) => textOf({ content: (await client.readResource({ uri })).contents }),
    wantLogs: async (level) => void (await client.setLoggingLevel(level)),
    subscribe: async (uri) => {
      await client.subscribeResource({ uri })
      return async () => void (await client.unsubscribeResource({ uri }))
    },
    watchTools: () => Promise.resolve(),
    close: async () => {
      await transport.terminateSession()
      await client.close()
    },
  }
}
