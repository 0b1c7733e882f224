import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/bed/global-setup.ts'],
    testTimeout: 30_000,
    hookTimeout: 180_000,
    // dockerd takes up to 5 s to stop while somebody listens to its events.
    teardownTimeout: 60_000,
  },
})
