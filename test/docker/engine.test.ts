import { chmodSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { engineFromEnvironment, engineProblem } from '../../src/docker/engine.ts'
import { filesOfFolder } from '../../src/docker/tls.ts'
import { run } from '../bed/command.ts'
import { describeWithDocker } from '../bed/docker.ts'
import { Relay } from './relay.ts'

describe('the engine of the environment', () => {
  test.each<[Record<string, string>, object]>([
    [{ DOCKER_HOST: 'unix:///run/user/1000/docker.sock' }, { name: 'host', socketPath: '/run/user/1000/docker.sock' }],
    [{ DOCKER_HOST: 'tcp://10.0.0.5:2375' }, { name: 'host', host: '10.0.0.5', port: 2375 }],
    [{ DOCKER_HOST: 'tcp://docker' }, { name: 'host', host: 'docker', port: 2375 }],
    [{ DOCKER_HOST: 'tcp://[::1]:4000/' }, { name: 'host', host: '::1', port: 4000 }],
    [
      { DOCKER_HOST: 'tcp://docker:2376', HOME: '/home/ann' },
      { name: 'host', host: 'docker', port: 2376, tls: filesOfFolder('/home/ann/.docker') },
    ],
    [
      { DOCKER_HOST: 'tcp://docker', DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: '/certs/client' },
      { name: 'host', host: 'docker', port: 2376, tls: filesOfFolder('/certs/client') },
    ],
    [
      { DOCKER_HOST: 'tcp://docker:4000', DOCKER_TLS_VERIFY: '1', DOCKER_CONFIG: '/etc/docker-client' },
      { name: 'host', host: 'docker', port: 4000, tls: filesOfFolder('/etc/docker-client') },
    ],
  ])('%j', (env, address) => {
    expect(engineFromEnvironment(env)).toEqual({ address })
  })

  test('may be behind ssh', () => {
    const ssh = { user: 'ann', host: 'build', port: 2222, socketPath: '/run/docker.sock' }
    expect(engineFromEnvironment({ DOCKER_HOST: 'ssh://ann@build:2222/run/docker.sock' })).toEqual({ ssh })
  })

  test.each([{}, { DOCKER_HOST: '' }, { DOCKER_HOST: 'unix://' }])('%j: the one of the machine, if any', (env) => {
    const socketPath = '/var/run/docker.sock'
    expect(engineFromEnvironment(env)).toEqual(existsSync(socketPath) ? { address: { name: 'host', socketPath } } : {})
  })

  test.each([
    [{ DOCKER_HOST: 'ssh://root:secret@docker' }, 'It is not an address that ssh takes.'],
    [{ DOCKER_HOST: 'ssh://-oProxyCommand=secret' }, 'It is not an address that ssh takes.'],
    [{ DOCKER_HOST: 'npipe:////./pipe/docker_engine' }, 'Engines behind npipe:// are not supported.'],
    [{ DOCKER_HOST: 'tcp://:2375' }, 'It is not an address.'],
    [{ DOCKER_HOST: 'docker:2375' }, 'It is not an address.'],
  ])('%j: a problem', (env, message) => {
    const { address, problem } = engineFromEnvironment(env)
    expect(address).toBeUndefined()
    expect(problem).toMatchObject({ about: 'engine host', where: 'DOCKER_HOST', message })
    expect(JSON.stringify(problem)).not.toContain('secret')
  })
})

test('a problem names the address, and an unknown error by its code', () => {
  const error = Object.assign(new Error('connect EHOSTUNREACH'), { code: 'EHOSTUNREACH' })
  expect(engineProblem({ name: 'far', host: 'docker', port: 2375 }, error)).toMatchObject({
    about: 'engine far',
    where: 'tcp://docker:2375',
    message: 'The Docker engine does not answer (EHOSTUNREACH).',
  })
})

test('a call that timed out is a problem of its own', () => {
  const error = new DOMException('no answer in time', 'TimeoutError')
  expect(engineProblem({ name: 'far', host: 'docker', port: 2375 }, error)).toMatchObject({
    message: 'The Docker engine does not answer in time.',
  })
})

describeWithDocker('an engine whose socket this user may not open', (docker) => {
  test('is a problem that says how to get the right', async () => {
    await using relay = await Relay.before(docker.socketPath)
    chmodSync(relay.socketPath, 0o000)
    // root opens every file, unless it has given these two rights away.
    const drop = ['setpriv', '--bounding-set', '-dac_override,-dac_read_search', '--']
    const command = [process.execPath, join(import.meta.dirname, 'first-state.ts'), relay.socketPath]
    const [program, ...args] = process.getuid?.() === 0 ? [...drop, ...command] : command
    expect(JSON.parse(await run(program!, args))).toMatchObject({
      engine: 'host',
      reachable: false,
      problem: {
        about: 'engine host',
        where: `unix://${relay.socketPath}`,
        message: 'This user may not open the socket of the Docker engine.',
        remedy: expect.stringContaining('usermod -aG docker'),
      },
    })
  })
})
