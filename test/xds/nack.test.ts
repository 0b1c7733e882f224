import { expect, test } from 'vitest'

import { redacted } from '../../src/xds/nack.ts'

const RULE = 'Proto constraint validation failed (RouteError.VirtualHosts[0]: value must contain at least 1 item(s))'
const DUMP = 'name: "a"\nrequest_headers_to_add {\n  header {\n    value: "hunter2"\n  }\n}\nweight: 3\n'

test.for([
  // As 1.40 says it: the resource first.
  [`goo.gle/debugproto   \n${DUMP}: ${RULE}.`, RULE],
  [`${RULE}: goo.gle/debugonly  ${DUMP}`, RULE],
  [`Error adding/updating listener(s) a:11100: goo.gle/debugproto ${DUMP}: ${RULE}.`, `Error adding/updating listener(s) a:11100: ${RULE}`], // oxfmt-ignore
  [`Unable to unpack as envoy.config.route.v3.RouteConfiguration: [type.googleapis.com/x.Y] {${DUMP}}`, 'Unable to unpack as envoy.config.route.v3.RouteConfiguration'], // oxfmt-ignore
  [DUMP, 'it quotes the resource instead of a reason'],
  ['{"name":"hunter2"}', 'it quotes the resource instead of a reason'],
  // What says it all stays as it is.
  ['missing ]: [bad(', 'missing ]: [bad('],
  [
    "Error adding/updating listener(s) l4: cannot bind '127.0.0.1:11100': Address already in use",
    "Error adding/updating listener(s) l4: cannot bind '127.0.0.1:11100': Address already in use",
  ],
  [
    "a:11100: Didn't find a registered implementation for 'hcm' with type URL: 'x.Y'",
    "a:11100: Didn't find a registered implementation for 'hcm' with type URL: 'x.Y'",
  ],
  ['', 'it says no reason'],
] as const)('%s', ([message, expected]) => {
  expect(redacted(message)).toBe(expected)
})

test('is short, whatever comes', () => {
  expect(redacted('x'.repeat(1_000_000))).toHaveLength(301)
  expect(redacted(`${'('.repeat(500_000)} hunter2`)).toHaveLength(301)
})
