// Ways past the rules for tools that somebody may try. `alice` has `echo` and `read_*` without `read_secret`; `bob` has all
// but `delete_*` and `read_secret`; there is nobody else.

import type { Policies } from '../../src/model/policy.ts'

export const POLICIES: Policies = {
  alice: {
    tools: {
      allow: [
        ['*o', 'read_*'],
        ['echo', 'read_*'],
      ],
      deny: ['read_secret'],
    },
  },
  bob: { tools: { allow: [], deny: ['delete_*', 'read_secret'] } },
  carol: {},
}

export interface Attempt {
  readonly what: string
  /** Wire text; `META` stands for what the era wants in `params`. */
  readonly body: string | Buffer
  readonly status: number
  readonly code: number
  readonly id: number | null
  readonly client?: string
  readonly headers?: Readonly<Record<string, string>>
}

const NOT_ALLOWED = { status: 403, code: -32000, id: 7 }
const INVALID_PARAMS = { status: 400, code: -32602, id: 7 }
const INVALID_REQUEST = { status: 400, code: -32600, id: null }
const MISSPELLED = { ...INVALID_REQUEST, id: 7 }
const NOT_JSON = { status: 400, code: -32700, id: null }

const call = (params: string, method = '"tools/call"') =>
  `{"jsonrpc":"2.0","id":7,"method":${method},"params":{${params}}}`
const named = (name: string) => call(`"name":${name},META`)
const ALLOWED = '{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"echo",META}}'
const DENIED = named('"delete_all"')

const names = (client: string, list: readonly (readonly [string, string])[]): Attempt[] =>
  list.map(([what, name]) => ({ what: `${what} (${client})`, body: named(name), client, ...NOT_ALLOWED }))

export const ATTEMPTS: readonly Attempt[] = [
  ...names('alice', [
    ['the name as it is', '"delete_all"'],
    ['one that only the second list has not', '"info"'],
    ['one that is allowed and denied', '"read_secret"'],
    ['one escape', String.raw`"\u0064elete_all"`],
    ['escapes all over', String.raw`"\u0064\u0065\u006c\u0065\u0074\u0065\u005f\u0061\u006c\u006c"`],
    ['upper case of an allowed name', '"ECHO"'],
    ['blanks around an allowed name', '" echo "'],
    ['an allowed name and a zero', String.raw`"echo\u0000"`],
    ['an allowed name and a line', String.raw`"echo\ndelete_all"`],
    ['a pattern for all', '"*"'],
    ['a pattern for some', '"delete_*"'],
    ['a pattern of another kind', '"(echo|delete_all)"'],
    ['the header’s encoding', '"=?base64?ZGVsZXRlX2FsbA==?="'],
    ['encoded as in a URI', '"delete%5Fall"'],
    ['a path', '"echo/../delete_all"'],
    ['two names', '"echo,delete_all"'],
    ['no name at all', '""'],
    ['what every object has', '"constructor"'],
    ['what every object comes from', '"__proto__"'],
    ['Cyrillic letters that look the same', '"есho"'],
  ]),
  ...names('bob', [
    ['the name as it is', '"delete_all"'],
    ['upper case', '"DELETE_ALL"'],
    ['both cases', '"Read_Secret"'],
    ['a blank behind', '"delete_all "'],
    ['a blank before', '" delete_all"'],
    ['a no-break space', String.raw`"delete_all\u00a0"`],
    ['a tabulator', String.raw`"delete_all\t"`],
    ['an end of line', String.raw`"delete_all\r\n"`],
    ['a zero', String.raw`"read_secret\u0000"`],
    ['what nobody sees', String.raw`"read_\u200bsecret"`],
    ['the same as bytes', '"read_\u200bsecret"'],
    ['a byte order mark', String.raw`"\ufeffread_secret"`],
    ['writing from right to left', String.raw`"\u202eread_secret"`],
    ['half of a character', String.raw`"read_secret\ud800"`],
    ['full-width letters', '"ｒｅａｄ_ｓｅｃｒｅｔ"'],
    ['a full-width line', '"read＿secret"'],
    ['the long s', '"read_ſecret"'],
    ['mathematical letters', '"𝐫𝐞𝐚𝐝_secret"'],
  ]),
  { what: 'a list as the name', body: named('["delete_all"]'), ...INVALID_PARAMS },
  { what: 'an object as the name', body: named('{"name":"delete_all"}'), ...INVALID_PARAMS },
  { what: 'a number as the name', body: named('1'), ...INVALID_PARAMS },
  { what: 'null as the name', body: named('null'), ...INVALID_PARAMS },
  { what: 'no name', body: call('META'), ...INVALID_PARAMS },
  { what: 'a name without end', body: named(`"${'a'.repeat(10_000)}"`), ...INVALID_PARAMS },
  { what: 'an allowed name first', body: call('"name":"echo","name":"delete_all",META'), ...INVALID_PARAMS },
  { what: 'an allowed name last', body: call('"name":"delete_all","name":"echo",META'), ...INVALID_PARAMS },
  {
    what: 'the same key, escaped',
    body: call(String.raw`"name":"echo","n\u0061me":"delete_all",META`),
    ...INVALID_PARAMS,
  },
  { what: 'the key escaped', body: call(String.raw`"\u006eame":"delete_all",META`), ...NOT_ALLOWED },
  { what: 'the key in upper case', body: call('"Name":"delete_all",META'), ...MISSPELLED },
  {
    what: 'an allowed name, and the key in upper case',
    body: call('"name":"echo","Name":"delete_all",META'),
    ...MISSPELLED,
  },
  { what: 'the same before it', body: call('"NAME":"delete_all","name":"echo",META'), ...MISSPELLED },
  {
    what: 'the same, escaped',
    body: call(String.raw`"name":"echo","\u004eame":"delete_all",META`),
    ...MISSPELLED,
  },
  {
    what: 'other params in upper case',
    body: '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo",META},"Params":{"name":"delete_all"}}',
    ...MISSPELLED,
  },
  {
    what: 'other params with the long s',
    body: '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo",META},"paramſ":{"name":"delete_all"}}',
    ...MISSPELLED,
  },
  {
    what: 'another method in upper case',
    body: '{"jsonrpc":"2.0","id":7,"method":"ping","Method":"tools/call","params":{"name":"delete_all",META}}',
    ...MISSPELLED,
  },
  {
    what: 'an answer with a method',
    body: '{"jsonrpc":"2.0","id":7,"result":{},"METHOD":"tools/call","params":{"name":"delete_all"}}',
    ...INVALID_REQUEST,
  },
  { what: 'the method escaped', body: call('"name":"delete_all",META', String.raw`"tools\/call"`), ...NOT_ALLOWED },
  {
    what: 'a letter of it escaped',
    body: call('"name":"delete_all",META', String.raw`"\u0074ools/call"`),
    ...NOT_ALLOWED,
  },
  { what: 'the method in upper case', body: call('"name":"delete_all",META', '"Tools/Call"'), ...NOT_ALLOWED },
  { what: 'the method with a blank', body: call('"name":"delete_all",META', '"tools/call "'), ...NOT_ALLOWED },
  { what: 'the method in wide letters', body: call('"name":"delete_all",META', '"tools／call"'), ...NOT_ALLOWED },
  {
    what: 'two methods',
    body: '{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/call","params":{"name":"delete_all",META}}',
    ...INVALID_REQUEST,
  },
  {
    what: 'two params',
    body: '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo",META},"params":{"name":"delete_all",META}}',
    ...INVALID_REQUEST,
  },
  {
    what: 'params as a list',
    body: '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":["delete_all"]}',
    ...INVALID_REQUEST,
  },
  { what: 'a notification', body: DENIED.replace('"id":7,', ''), ...NOT_ALLOWED, id: null },
  { what: 'no id that is one', body: DENIED.replace('"id":7', '"id":null'), ...INVALID_REQUEST },
  { what: 'another JSON-RPC', body: DENIED.replace('"2.0"', '"1.0"'), ...INVALID_REQUEST },
  { what: 'a batch', body: `[${DENIED}]`, ...NOT_ALLOWED },
  { what: 'behind an allowed call in a batch', body: `[${ALLOWED},${DENIED}]`, ...NOT_ALLOWED },
  { what: 'before an allowed call in a batch', body: `[${DENIED},${ALLOWED}]`, ...NOT_ALLOWED },
  {
    what: 'a notification in a batch',
    body: `[${ALLOWED},${DENIED.replace('"id":7,', '')}]`,
    ...NOT_ALLOWED,
    id: null,
  },
  { what: 'a batch in a batch', body: `[[${DENIED}]]`, ...INVALID_REQUEST },
  { what: 'two messages without a batch', body: `${ALLOWED}${DENIED}`, ...NOT_JSON },
  { what: 'two messages on two lines', body: `${ALLOWED}\n${DENIED}`, ...NOT_JSON },
  { what: 'a line in a string', body: named(`"echo\n${DENIED.replaceAll('"', String.raw`\"`)}"`), ...NOT_JSON },
  { what: 'white space of every kind', body: DENIED.replaceAll(':', ' \r\n\t: '), ...NOT_ALLOWED },
  { what: 'a byte order mark before all', body: `\ufeff${DENIED}`, ...NOT_JSON },
  { what: 'a comment', body: DENIED.replace('"id"', '/**/"id"'), ...NOT_JSON },
  {
    what: 'no UTF-8',
    body: Buffer.concat([Buffer.from('{"x":"'), Buffer.from([0xc0, 0xaf]), Buffer.from('"}')]),
    ...NOT_JSON,
  },
  { what: 'as a task', body: call('"name":"delete_all","task":{"ttl":60000},META'), ...NOT_ALLOWED },
  {
    what: 'as one that goes on',
    body: call('"name":"delete_all","requestState":"x","inputResponses":{},META'),
    ...NOT_ALLOWED,
  },
  { what: 'a header with an allowed name', body: DENIED, headers: { 'mcp-name': 'echo' }, ...NOT_ALLOWED },
  { what: 'a header with it encoded', body: DENIED, headers: { 'mcp-name': '=?base64?ZWNobw==?=' }, ...NOT_ALLOWED },
  { what: 'a header with both', body: DENIED, headers: { 'mcp-name': 'echo, delete_all' }, ...NOT_ALLOWED },
  { what: 'a header with another method', body: DENIED, headers: { 'mcp-method': 'tools/list' }, ...NOT_ALLOWED },
  {
    what: 'a header with the other era',
    body: DENIED,
    headers: { 'mcp-protocol-version': '2025-06-18' },
    ...NOT_ALLOWED,
  },
  { what: 'somebody else', body: named('"echo"'), client: 'mallory', ...NOT_ALLOWED },
  { what: 'the name of one who may, in upper case', body: named('"echo"'), client: 'CAROL', ...NOT_ALLOWED },
  { what: 'two who may', body: named('"echo"'), client: 'alice, carol', ...NOT_ALLOWED },
  { what: 'nobody', body: named('"echo"'), client: '', ...NOT_ALLOWED },
  { what: 'what every object has, as a client', body: named('"echo"'), client: 'constructor', ...NOT_ALLOWED },
]
