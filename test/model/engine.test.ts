import { expect, test } from 'vitest'

import { parseSshHost, sshAddress, sshCommand } from '../../src/model/engine.ts'

const DEFAULT = '/var/run/docker.sock'

test.each([
  ['ssh://build', { host: 'build', socketPath: DEFAULT }, 'ssh build docker version'],
  [
    'ssh://ann@build.example',
    { user: 'ann', host: 'build.example', socketPath: DEFAULT },
    'ssh ann@build.example docker version',
  ],
  [
    'ssh://ann@[fd00::1]:2222/run/user/1000/docker.sock',
    { user: 'ann', host: 'fd00::1', port: 2222, socketPath: '/run/user/1000/docker.sock' },
    'ssh -p 2222 ann@fd00::1 docker version',
  ],
])('%s', (text, host, command) => {
  expect(parseSshHost(text)).toEqual(host)
  expect(sshAddress(host)).toBe(text)
  expect(sshCommand(host, 'docker version')).toBe(command)
})

test('the usual path may be written', () => {
  expect(parseSshHost('ssh://build/')).toEqual(parseSshHost(`ssh://build${DEFAULT}`))
})

test.each([
  'ssh://',
  'ssh://ann:secret@build',
  // Options of the ssh client, and what it would expand or take apart.
  'ssh://-oProxyCommand=touch',
  'ssh://-l@build',
  'ssh://build/%h',
  'ssh://build/a:b',
  'ssh://build/a b',
  'ssh://build:0',
  'ssh://build:65536',
  'ssh://build\n',
  'tcp://build',
])('%j is no such address', (text) => {
  expect(parseSshHost(text)).toBeUndefined()
})
