// `berth catalog`: the ready services, and what each of them needs.

import type { CatalogEntry } from '../catalog/entry.ts'
import { CATALOG } from '../catalog/entries.ts'
import { exampleOf } from '../catalog/example.ts'
import { findEntry } from '../catalog/lookup.ts'
import { imageOf } from '../catalog/recipe.ts'
import { OperatorError } from '../model/operator-error.ts'
import type { CommandContext } from './command.ts'
import { table } from './table.ts'

export const name = 'catalog'
export const summary = 'List ready services, or show what one of them needs.'
export const usage = '[name]'
export const options = {}

export function run({ args: [name], json, print }: CommandContext): Promise<number> {
  if (name === undefined) print(json ? JSON.stringify(CATALOG.map(document), null, 2) : list())
  else {
    const entry = entryNamed(name)
    print(json ? JSON.stringify(document(entry), null, 2) : detail(entry))
  }
  return Promise.resolve(0)
}

/** Throws OperatorError when the catalog has no entry of this name. */
export function entryNamed(name: string): CatalogEntry {
  const found = findEntry(name)
  if (found.entry) return found.entry
  const near = found.nearest === undefined ? '' : ` Did you mean ${found.nearest}?`
  throw new OperatorError(`The catalog has no ${name}.${near} berth catalog lists what it has.`)
}

function document(entry: CatalogEntry): object {
  return { ...entry, image: imageOf(entry), example: exampleOf(entry) }
}

function list(): string {
  const rows = CATALOG.map(({ name, network, isolation, secrets, title }) => [
    name,
    network.mode,
    isolation.advice,
    required(secrets) || '-',
    title,
  ])
  return [
    table([['NAME', 'NETWORK', 'ISOLATION', 'SECRETS', 'WHAT'], ...rows]),
    '',
    'berth catalog <name> shows one of them, berth image build <name> makes its image.',
  ].join('\n')
}

function required(secrets: CatalogEntry['secrets']): string {
  return secrets
    .filter(({ required }) => required)
    .map(({ name }) => name)
    .join(', ')
}

function detail(entry: CatalogEntry): string {
  const { title, description, package: from, program, settings, secrets, network, folders, isolation } = entry
  const facts = [
    ['package', `${from.name} ${from.version} (${from.registry})`],
    ['image', imageOf(entry)],
    ['program', [program, ...entry.arguments.map(({ text }) => text)].join(' ')],
    ...entry.arguments.flatMap(({ text, about }) => (about === undefined ? [] : [['argument', `${text}: ${about}`]])),
    ...settings.map((setting) => ['setting', `${setting.name}=${setting.value}: ${setting.about}`]),
    ...secrets.map(({ name, about, required }) => [
      'secret',
      `${name}${required ? '' : ' (may be left out)'}: ${about}`,
    ]),
    ['network', `${network.mode}: ${network.why}`],
    ...folders.map(({ path, access, about }) => ['folder', `${path} (${access}): ${about}`]),
    ['isolation', `${isolation.advice}: ${isolation.why}`],
    ['memory', `${entry.memoryMB} MB after it has listed its tools`],
  ]
  return [
    `${entry.name}: ${title}`,
    '',
    description,
    '',
    table(facts.map(([fact = '', words = '']) => [`  ${fact}`, words])),
    '',
    `Make the image with berth image build ${entry.name}, then write in berth.yaml:`,
    '',
    exampleOf(entry).trimEnd().replace(/^/gm, '  '),
  ].join('\n')
}
