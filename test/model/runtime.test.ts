import { describe, expect, test } from 'vitest'

import { placed, type EngineView } from '../../src/model/runtime.ts'
import { image, service } from '../fixtures/world.ts'

function engine(name: string, options: Partial<EngineView> = {}): EngineView {
  const runtime = name === 'dind' ? 'dind' : 'docker'
  return { name, runtime, reachable: true, starting: false, image: () => ({ state: 'present' }), ...options }
}

const away = { reachable: false }

describe('a service of an image', () => {
  const everywhere = service('a', { backend: image('dind', 'docker', 'process') })
  const onEngines = service('a', { backend: image('dind', 'docker') })

  test('runs on the first of its runtimes that is there, and says why not on an earlier one', () => {
    expect(placed(everywhere, [engine('host'), engine('dind')])).toMatchObject({ backend: { engine: 'dind' } })
    expect(placed(everywhere, [engine('host'), engine('dind', away)])).toMatchObject({
      backend: { engine: 'host' },
      note: 'the Docker-in-Docker engine dind does not answer.',
    })
    expect(placed(everywhere, [])).toMatchObject({ backend: { kind: 'process' } })
  })

  test('keeps what runs where it is when its engines do not answer and there is nowhere else', () => {
    const found = placed(onEngines, [engine('dind', away), engine('host', away)])
    expect(found).toMatchObject({ backend: { engine: 'dind' }, doubt: expect.stringMatching(/^Service a cannot run/) })
    expect(found.down).toBeUndefined()
  })

  test('is down when there is no engine for it at all', () => {
    expect(placed(onEngines, [])).toMatchObject({ down: expect.stringContaining('no Docker engine is configured') })
  })
})
