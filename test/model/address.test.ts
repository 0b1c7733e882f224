import { expect, test } from 'vitest'

import { atHost, bracketed, callAddress, isLoopback, isWildcard } from '../../src/model/address.ts'

test.for([
  ['127.0.0.1', '127.0.0.1', 'loopback'],
  ['127.1.2.3', '127.1.2.3', 'loopback'],
  ['::1', '::1', 'loopback'],
  ['0.0.0.0', '127.0.0.1', 'wildcard'],
  ['::', '::1', 'wildcard'],
  ['0:0:0:0:0:0:0:0', '::1', 'wildcard'],
  ['192.0.2.7', '192.0.2.7', 'other'],
  ['2001:db8::', '2001:db8::', 'other'],
])('what listens on %s is called at %s', ([bind = '', called, kind]) => {
  expect(callAddress(bind)).toBe(called)
  expect([isLoopback(bind), isWildcard(bind)]).toEqual([kind === 'loopback', kind === 'wildcard'])
})

test('an IPv6 address has brackets in a URL', () => {
  expect([bracketed('192.0.2.7'), bracketed('::1'), bracketed('envoy')]).toEqual(['192.0.2.7', '[::1]', 'envoy'])
})

test.for([
  ['http://127.0.0.1:11100/mcp', 'envoy', 'http://envoy:11100/mcp'],
  ['http://[::1]:10005/files/mcp', '192.0.2.7', 'http://192.0.2.7:10005/files/mcp'],
  ['http://127.0.0.1:11100/mcp', undefined, 'http://127.0.0.1:11100/mcp'],
])('%s at %s is %s', ([url, host, expected]) => {
  expect(atHost(url!, host)).toBe(expected)
})
