// Mappings and optional values, as all parts of the schema write them.

import { z } from 'zod'

/**
 * A mapping with these keys and no others. zod names only the keys that it does not know, so the message carries those
 * that it does, for `mistakes.ts` to find the nearest.
 */
export function keys<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? Object.keys(shape).join(' ') : undefined),
  })
}

/** A key may be absent, or written with nothing behind it. */
export function optional<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value): z.output<T> | undefined => value ?? undefined)
}
