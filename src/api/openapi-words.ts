// What the parts of the OpenAPI document are made with.

/** Made in openapi.ts. */
export interface Words {
  readonly operation: (operationId: string, summary: string, responses: object) => object
  readonly json: (description: string, schema: object) => object
  readonly failure: (description: string) => object
  readonly body: (name: string) => object
  readonly reference: (name: string) => object
  readonly listOf: (name: string) => object
}
