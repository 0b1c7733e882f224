// A ready service as berth.yaml would have it.

import type { CatalogEntry } from './entry.ts'
import { SERVICE_NAME } from '../model/names.ts'
import { imageOf } from './recipe.ts'

/** A document that can be pasted as it is; what only the user can know stands in it as an example. */
export function exampleOf(entry: CatalogEntry, name: string = entry.name): string {
  const { isolation, folders, network, settings, secrets } = entry
  const yours = settings.filter(({ kind }) => kind === 'example')
  return [
    'services:',
    // Any other is a mistake, to be told as what it is.
    `  ${SERVICE_NAME.test(name) ? name : JSON.stringify(name)}:`,
    `    image: ${imageOf(entry)}`,
    `    isolation: ${isolation.advice}`,
    ...list(
      'volumes',
      // A new volume of the engine gets the image's owner; what is only read is the user's own.
      folders.map(({ path, access }) => (access === 'ro' ? `./${name}:${path}:ro` : `${name}:${path}`)),
    ),
    ...(network.mode === 'none' ? [] : [`    network: ${network.mode}`]),
    ...map(
      'env',
      yours.map((setting) => `${setting.name}: ${JSON.stringify(setting.value)}`),
    ),
    ...map(
      'secrets',
      secrets.filter(({ required }) => required).map((secret) => `${secret.name}: {env: ${secret.name}}`),
    ),
    '',
  ].join('\n')
}

function list(key: string, items: readonly string[]): readonly string[] {
  return items.length === 0 ? [] : [`    ${key}: [${items.map((item) => JSON.stringify(item)).join(', ')}]`]
}

function map(key: string, members: readonly string[]): readonly string[] {
  return members.length === 0 ? [] : [`    ${key}: {${members.join(', ')}}`]
}
