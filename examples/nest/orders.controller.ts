import { BadRequestException, Body, ConflictException, Controller, Post } from '@nestjs/common';
import { Order } from './order';
import { OrdersService, SoldOut } from './orders.service';

@Controller('orders')
export class OrdersController {
  constructor(private readonly orders: OrdersService) {}

  @Post()
  async place(@Body() body: unknown): Promise<void> {
    const order = Order.safeParse(body);
    if (!order.success) throw new BadRequestException();
    try {
      await this.orders.place(order.data);
    } catch (error) {
      if (error instanceof SoldOut) throw new ConflictException(error.message);
      throw error;
    }
  }
}
