// The result of a tool as a person reads it.

import type { CallToolResult, ContentBlock } from '@modelcontextprotocol/sdk/types.js'

/** `terminal`: control characters are left out, because a server's text must not steer the terminal. */
export function resultWords(result: CallToolResult, { terminal }: { terminal: boolean }): string {
  const blocks = result.content.map(blockWords)
  const words =
    blocks.length === 0 && result.structuredContent !== undefined
      ? JSON.stringify(result.structuredContent, null, 2)
      : blocks.join('\n')
  return terminal ? words.replace(/(?![\n\t])\p{Cc}/gu, '') : words
}

function blockWords(block: ContentBlock): string {
  switch (block.type) {
    case 'text':
      return block.text
    case 'image':
    case 'audio':
      return `[${block.type}: ${block.mimeType}, ${Buffer.byteLength(block.data, 'base64')} bytes]`
    case 'resource_link':
      return `[${block.name}: ${block.uri}]`
    default:
      return 'text' in block.resource ? block.resource.text : `[resource: ${block.resource.uri}]`
  }
}
