import { Module, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { OutboxModule } from 'messenger-outbox/nest';
import { broker } from './broker';
import { createTables, pool } from './database';
import { HealthController } from './health.controller';
import { OrdersController } from './orders.controller';
import { OrdersService } from './orders.service';
import { outbox } from './outbox';
import { Shipping, subscribers } from './shipping';

const relay = { publisher: broker, cleanUp: 24 * 60 * 60 * 1000 };

@Module({
  imports: [OutboxModule.forRoot({ outbox, relay, subscribers, discovery: DiscoveryService })],
  controllers: [OrdersController, HealthController],
  providers: [OrdersService, Shipping],
})
export class AppModule implements OnModuleInit, OnApplicationShutdown {
  async onModuleInit(): Promise<void> {
    await createTables();
    await outbox.migrate();
  }

  // After the relay and the handlers, which end with onModuleDestroy.
  async onApplicationShutdown(): Promise<void> {
    await pool.end();
  }
}
